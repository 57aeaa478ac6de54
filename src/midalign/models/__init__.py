"""Loading models, their hidden states and sentence vectors, LoRA adapters."""
