"""The model: loading, preprocessing, recording, peaks, receptive fields and embeddings."""
