"""The questions to an atlas and their answers, for the command line, Python, the API and the pages alike."""
