"""Verb ``train``: LoRA fine-tuning on the task and the alignment loss in turn."""
