"""A version sealed: its images and names, what it shares with others, its manifest, and what `gc` deletes of it."""
