"""One file a queue, each run by the Python of its own environment: `python -m bench.peers NAME work|submit`.

A module has `work()`, which runs one worker until it is killed, and `submit(n, sent_ns)`, which hands in one job; both
may be tuned as the README says. A queue that can hand in many at once has `submit_many(numbers)`. When `submit` is a
coroutine function the module is an asyncio producer and may have `open()` and `close()`. Nothing here imports
ragworker or the rest of the bench but `stage.py`.
"""
