"""Command ``generate``: answers of a model to the prompts of a task."""
