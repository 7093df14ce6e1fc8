"""Questions about what people write: annotations of units and images, and collections of both."""
