"""The addresses of the API, one module per group; each only asks and replies."""

API = "/api/v1"
"""Path that each router's own prefix begins with: figures are labelled by the path that a route itself knows."""
