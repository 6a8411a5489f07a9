"""`python -m sgnray.cli` is `sgn`."""

from .main import run

run()
