"""The bench room: ragworker beside other Python job queues on one Redis, interleaved. README.md says how to read it."""
