"""What is answered now: an opened atlas, its pictures, the API and the pages."""
