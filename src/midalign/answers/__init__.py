"""The one format of answers: how they are written, read back, matched to words, and held to their form."""
