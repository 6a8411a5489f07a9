"""One trial, in a Ray worker."""
