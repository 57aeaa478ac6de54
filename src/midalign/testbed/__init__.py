"""Commands ``demo`` and ``testbed``: a small world of voice commands, and a model trained on its text."""
