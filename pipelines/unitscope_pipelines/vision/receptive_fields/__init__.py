"""Receptive fields: which input pixels can change a unit, measured on the network's real computation."""
