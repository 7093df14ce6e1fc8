"""Conditions on what the corpus says of its images: read from text, and compared with columns of any type."""
