"""The ranks of a unit: of one segment, of several merged, and of a bounded atlas."""
