"""The page, pictures and tables of a search."""
