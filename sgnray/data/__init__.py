"""Skeletons, protocols, the Arrow dataset, and batches drawn from it."""
