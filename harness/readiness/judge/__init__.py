"""Judging: (profile, evidence, context) -> scorecard. Pure; only profile.py reads a file, the profile's YAML."""
