"""The load step of a run: plan it, let Locust make it, read what Locust wrote, turn it into evidence.

plan.py (values and bounds), arrivals.py (when who submits), sse.py (event streams as text), rawlog.py (the
lines that the generator writes), figures.py (what they mean), series.py (what the system showed meanwhile),
step.py (the step). The generator itself, `loadtests/locustfile.py`, runs in a process of its own and
imports plan, arrivals, sse and rawlog only: Locust patches the standard library, which must not happen to
the harness.
"""
