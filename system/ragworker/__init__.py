"""ragworker: a compact, durable retrieval-augmented-generation worker on Redis. Knows nothing of the harness."""

__version__ = "0.1.0"
