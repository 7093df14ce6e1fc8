"""The atlas's model, loaded on first use: what it makes of one picture."""
