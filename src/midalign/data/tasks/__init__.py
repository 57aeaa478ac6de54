"""Task data, from the formats in which it is published."""
