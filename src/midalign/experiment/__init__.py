"""Command ``run``: all steps of one recipe, from the probe to the report; command ``validate``."""
