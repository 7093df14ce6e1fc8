"""The ranked tables that questions read, and the statistics of every unit."""
