"""The application: routes, and how questions come in and answers go out."""
