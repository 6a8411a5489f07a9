"""How fast this machine or cluster trains a recipe: clips/s, FLOP/s, workers, estimated times."""

from sgnray.bench.run import BenchResult, bench_recipe

__all__ = ["BenchResult", "bench_recipe"]
