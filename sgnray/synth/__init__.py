"""Synthetic people as NTU text."""
