"""Derived work for many units, spread over a Ray cluster."""
