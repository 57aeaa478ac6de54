"""Prompts and their tokens, task data, parallel corpora."""
