"""A version sealed: its images, its segments, its manifest, and what `gc` deletes of it."""
