"""Records that a manifest is made of: parts, segments, the model with its preprocessing, and the corpus."""
