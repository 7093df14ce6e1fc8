"""What pages show of annotations and collections."""
