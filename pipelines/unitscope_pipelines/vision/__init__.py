"""The model as a library: loading, preprocessing, recording, receptive fields, optimisation and attribution."""
