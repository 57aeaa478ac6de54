"""Verb ``generate``: greedy answers of a model to a task's prompts."""
