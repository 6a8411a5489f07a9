"""Ray below tuning, ranks, devices: where work runs."""
