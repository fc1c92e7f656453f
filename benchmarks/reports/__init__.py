"""Pictures, and the figures in README.md, from the files of results alone."""
