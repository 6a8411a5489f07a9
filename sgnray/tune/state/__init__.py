"""What a search has done so far, on disk and in memory."""
