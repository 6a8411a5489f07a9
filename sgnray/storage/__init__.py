"""Files and folders: written whole, on this machine or at a URI, locked."""
