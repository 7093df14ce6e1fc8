"""Networks by their spec: modules, weights, default layers, classes and latents."""
