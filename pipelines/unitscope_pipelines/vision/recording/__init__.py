"""Recording of what layers put out during a forward, and its reduction to peaks and embeddings."""
