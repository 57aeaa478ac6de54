"""Command ``probe``: translation retrieval at every layer of a model."""
