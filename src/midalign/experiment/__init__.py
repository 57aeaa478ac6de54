"""Verb ``run``: the whole job of a recipe, from the probe to the report."""
