"""Recordings and clips as pictures: animated, as a sheet, or in a browser."""

from sgnray.view.clip import view_clip
from sgnray.view.page import render_player
from sgnray.view.scene import scene_of_stream

__all__ = ["render_player", "scene_of_stream", "view_clip"]
