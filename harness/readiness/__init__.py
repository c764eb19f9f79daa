"""readiness: run a background-job system for real, break it on purpose, and score it by evidence."""

__version__ = "0.1.0"
