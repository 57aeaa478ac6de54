"""Command ``merge``: merges a task and an alignment adapter, with weights tuned on dev data."""
