"""Records that a manifest is made of, beside its parts: the model with its preprocessing, and the corpus."""
