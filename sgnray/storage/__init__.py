"""Files and folders, on this machine or at a URI: atomic writes, locks and local copies."""
