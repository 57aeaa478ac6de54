"""The scores of each task, and how two systems or several seeds are compared."""
