"""Verb ``evaluate``: scores of predictions; verb ``comet``."""
