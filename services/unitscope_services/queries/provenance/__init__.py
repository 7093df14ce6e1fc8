"""Whence an answer: the chain of digests behind one value, and what a digest is of."""
