"""The addresses of the pages for people; each only asks and replies."""
