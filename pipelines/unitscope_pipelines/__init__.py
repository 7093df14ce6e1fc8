"""What is computed ahead: from a corpus and a model to an atlas."""
