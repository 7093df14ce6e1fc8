"""What people write about units and images, in an SQLite file beside an atlas."""
