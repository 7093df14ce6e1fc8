"""Questions to an atlas and their answers, the same for the command line, Python, the API and the pages."""
