"""The version of sgnray, in this one place."""

__version__ = "0.1.0"
