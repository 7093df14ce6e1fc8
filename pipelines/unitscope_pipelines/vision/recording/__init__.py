"""What layers put out, recorded during a forward and reduced to peaks and embeddings."""
