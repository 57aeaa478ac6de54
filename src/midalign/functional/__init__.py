"""The mathematics: InfoNCE loss, pooling, margin, retrieval, merge formulas, statistics."""
