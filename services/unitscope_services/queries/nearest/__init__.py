"""The nearest patches, segment by segment and over all."""
