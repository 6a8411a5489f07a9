"""What is searched, and in which order."""
