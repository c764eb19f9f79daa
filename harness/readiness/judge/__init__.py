"""Judging.

(profile, evidence, context) -> scorecard. Pure; the only file it may read is the profile's YAML.
"""
