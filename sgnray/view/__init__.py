"""Recordings and clips as pictures: animated, as a sheet, or in a browser."""

from sgnray.view.clip import FORMATS, view_clip

__all__ = ["FORMATS", "view_clip"]
