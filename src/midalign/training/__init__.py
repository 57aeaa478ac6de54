"""Command ``train``: fine-tunes LoRA on the task and on alignment in turn."""
