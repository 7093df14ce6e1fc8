"""Optimisation of inputs for a unit, a direction or a class."""
