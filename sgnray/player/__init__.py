"""Skeletons that move on a page: the scenes that are shown, and the player that shows them."""

from sgnray.player.scene import Panel, Scene, Track, scene_of_clip

__all__ = ["Panel", "Scene", "Track", "scene_of_clip"]
