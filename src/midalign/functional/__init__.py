"""The mathematics: tensors and numbers in, tensors and numbers out; knows no model, file or recipe."""
