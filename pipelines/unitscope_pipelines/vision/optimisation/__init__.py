"""Inputs optimised for a unit, a direction or a class."""
