"""The addresses of the API and of the pages, one module per group; each only asks and replies."""

API = "/api/v1"
"""Part of each router's own prefix: figures are labelled by the path that a route itself knows."""
