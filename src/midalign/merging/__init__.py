"""Verb ``merge``: a task adapter and an alignment adapter become one, with weights tuned on dev data."""
