"""Task data (slots, extraction, translation) from the formats in which it is published."""
