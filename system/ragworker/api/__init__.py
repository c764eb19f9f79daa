"""The HTTP side of ragworker: submit, watch, cancel and repair jobs. Doing them is left to `worker`."""
