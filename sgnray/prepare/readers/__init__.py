"""One module per raw format; detect.py recognizes the format by its content."""
