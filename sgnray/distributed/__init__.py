"""Where work runs: Ray clusters, workers, ranks and devices."""
