"""The recipe: the sections of its YAML file, the data it names, the schedule of updates."""
