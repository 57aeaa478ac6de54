"""The recipe: one YAML file describes one run."""
