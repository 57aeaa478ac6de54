"""Command ``evaluate``: scores of predictions; command ``comet``."""
