"""The answers as they travel: rows and pages of the command line, the API and notebooks."""
