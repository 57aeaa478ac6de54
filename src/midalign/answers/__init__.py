"""The format of answers: write, parse and match them to the words of a sentence; grammars."""
