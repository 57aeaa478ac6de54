"""Verb ``evaluate``: scores of predictions against gold."""
