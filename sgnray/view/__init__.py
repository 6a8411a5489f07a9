"""Recordings and clips as pictures: animated, as a sheet, or in a browser."""

from sgnray.view.clip import view_clip

__all__ = ["view_clip"]
