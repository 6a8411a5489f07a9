"""What this machine or cluster makes of a recipe: clips/s, FLOP/s, workers, and the time of it."""

from sgnray.bench.result import BenchResult
from sgnray.bench.run import bench_recipe

__all__ = ["BenchResult", "bench_recipe"]
