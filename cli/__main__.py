"""`python -m sgnray.cli` is `sgn`."""

from .start import run

try:
    run()
finally:
    import ctypes

    # With -m, Python ends itself with SIGINT, whatever the exit status is, if a KeyboardInterrupt
    # once left code that a C library ran by PyRun_*. Running other code that way clears the mark.
    ctypes.pythonapi.PyRun_SimpleString(b"")
