"""The entry of `sgn`, which imports nothing else before it can handle Ctrl-C."""

import sys


def run() -> None:
    """Run `sgn`; Ctrl-C while its modules are imported ends it without a traceback."""
    try:
        from . import main

        main.run()
    except KeyboardInterrupt:
        sys.exit(130)
