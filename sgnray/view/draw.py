"""One frame of a scene as a picture, seen from the front.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sgnray.data.tracks import FloatArray
from sgnray.view.scene import FRAMES_PER_S, Panel, Role, Scene

COLORS: dict[Role, str] = {"main": "#2c6fb3", "second": "#c4560c", "removed": "#8a8a8a"}
BACK, INK, LINE = "#ffffff", "#333333", "#d8d8d8"
_ROLES: dict[Role, str] = {
    "main": "main actor",
    "second": "second actor",
    "removed": "removed by denoising",
}
_FINER = 2  # drawn larger and reduced, which smooths the lines
_MARGIN, _HEAD = 10, 18
_OUTLIERS = 0.2  # percent of coordinates at each end that may leave the picture


@dataclass(frozen=True)
class Frame:
    """Where a panel's meters are in its picture: its middle, and pixels for a meter."""

    middle: tuple[float, float]
    scale: float

    @classmethod
    def around(cls, panel: Panel, size: int) -> Frame:
        """Fit all that is ever seen of a panel into a square of `size` pixels."""
        points = np.concatenate(
            [track.joints_TVC[..., :2].reshape(-1, 2) for track in panel.tracks]
        )
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            return cls((0.0, 0.0), 1.0)
        low, high = np.percentile(points, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
        room = size - 4 * _MARGIN
        extent = max(float((high - low).max()), 1e-3)
        middle = (low + high) / 2
        return cls((float(middle[0]), float(middle[1])), room / extent)


class Painter:
    """Draws frames of one scene, all at one scale, so that nothing jumps."""

    def __init__(self, scene: Scene, size: int, *, names: bool = False) -> None:
        self._scene, self._size, self._names = scene, size, names
        self._frames = [Frame.around(panel, size) for panel in scene.panels]
        self._font = ImageFont.load_default(11)

    def draw(self, frame: int) -> Image.Image:
        """Draw all panels of a frame side by side."""
        width = self._size * len(self._scene.panels)
        picture = Image.new("RGB", (width, self._size + _HEAD), BACK)
        for number, panel in enumerate(self._scene.panels):
            at = (number * self._size, _HEAD)
            picture.paste(self._panel(panel, self._frames[number], frame), at)
            text = f"{panel.title}, {frame / FRAMES_PER_S:.1f} s"
            pen = ImageDraw.Draw(picture)
            pen.text((at[0] + 4, 2), _cut(text, self._size // 6), fill=INK, font=self._font)
            pen.rectangle(
                (at[0], _HEAD, at[0] + self._size - 1, self._size + _HEAD - 1), None, LINE
            )
        return picture

    def _panel(self, panel: Panel, place: Frame, frame: int) -> Image.Image:
        size = self._size * _FINER
        large = Image.new("RGB", (size, size), BACK)
        pen = ImageDraw.Draw(large)
        spots = [self._spots(track.joints_TVC[frame], place) for track in panel.tracks]
        order = sorted(range(len(spots)), key=lambda index: panel.tracks[index].role != "removed")
        for index in order:  # actors above what was removed
            self._skeleton(pen, spots[index], COLORS[panel.tracks[index].role])
        small = large.resize((self._size, self._size), Image.Resampling.LANCZOS)
        if self._names:
            for spot in spots:
                self._label(ImageDraw.Draw(small), spot)
        return small

    def _spots(self, joints_VC: FloatArray, place: Frame) -> list[tuple[float, float] | None]:
        center = self._size * _FINER / 2
        scale = place.scale * _FINER
        return [
            (center + (x - place.middle[0]) * scale, center - (y - place.middle[1]) * scale)
            if np.isfinite((x, y)).all()
            else None
            for x, y in joints_VC[:, :2].tolist()
        ]

    def _skeleton(
        self, pen: ImageDraw.ImageDraw, spots: list[tuple[float, float] | None], color: str
    ) -> None:
        for child, parent in self._scene.skeleton.bones:
            ends = (spots[child], spots[parent])
            if ends[0] is not None and ends[1] is not None:
                pen.line((ends[0], ends[1]), fill=color, width=2 * _FINER)
        radius = 2.5 * _FINER
        for spot in spots:
            if spot is not None:
                x, y = spot
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def _label(self, pen: ImageDraw.ImageDraw, spots: list[tuple[float, float] | None]) -> None:
        for name, spot in zip(self._scene.skeleton.joints, spots, strict=True):
            if spot is not None:
                where = (spot[0] / _FINER + 4, spot[1] / _FINER - 5)
                pen.text(where, name, fill=INK, font=ImageFont.load_default(9))


def with_head(picture: Image.Image, scene: Scene) -> Image.Image:
    """Put the title, and what the colors mean, above a picture."""
    font = ImageFont.load_default(12)
    roles = {track.role for panel in scene.panels for track in panel.tracks}
    shown = [role for role in _ROLES if role in roles and len(roles) > 1]
    whole = Image.new("RGB", (picture.width, picture.height + (36 if shown else 20)), BACK)
    whole.paste(picture, (0, whole.height - picture.height))
    pen = ImageDraw.Draw(whole)
    pen.text((4, 3), _cut(scene.title, picture.width // 7), fill=INK, font=font)
    x = 4.0
    for role in shown:
        pen.ellipse((x, 23, x + 8, 31), fill=COLORS[role])
        pen.text((x + 12, 20), _ROLES[role], fill=INK, font=font)
        x += 26 + font.getlength(_ROLES[role])
    return whole


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
