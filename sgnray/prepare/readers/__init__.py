"""One module per raw format; detect.py tells them apart by content."""
