"""One module per raw format, told apart by content."""
