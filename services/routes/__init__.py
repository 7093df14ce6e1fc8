"""The addresses of the API and of the pages, one module per group; each only asks and replies."""
