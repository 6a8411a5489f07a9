"""A scene as an animated GIF at its original speed or as a sheet of frames, from the front.

Legend: T frames, V joints, C coordinates.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sgnray.data.store import FloatArray
from sgnray.view.scene import Panel, Role, Scene

COLORS: dict[Role, str] = {"main": "#2c6fb3", "second": "#c4560c", "removed": "#8a8a8a"}
_BACK, _INK, _LINE = "#ffffff", "#333333", "#d8d8d8"
_ROLE_NAMES: dict[Role, str] = {
    "main": "main actor",
    "second": "second actor",
    "removed": "removed by denoising",
}
_OVERSAMPLING = 2  # drawn larger and then reduced, which smooths the lines
_MARGIN, _HEADER = 10, 18
_OUTLIERS = 0.2  # percent of coordinates at each end that may be outside the picture

_GIF_SIZE, _GIF_FPS, _GIF_FRAMES, _GIF_COLORS = 320, 15, 240, 32
_SHEET_SIZE, _SHEET_COLUMNS, _SHEET_FRAMES = 200, 4, 12
_NAMES_SCALE = 2  # times the size, so that joint names are readable


def draw_gif(scene: Scene, *, names: bool = False) -> bytes:
    """Draw an animation that takes as long as the clip did; long clips are subsampled."""
    step = max(round(scene.frames_per_s / _GIF_FPS), -(-scene.num_frames // _GIF_FRAMES))
    painter = _Painter(scene, _GIF_SIZE * (_NAMES_SCALE if names else 1), names=names)
    shown = range(0, scene.num_frames, step)
    pictures = [_with_header(painter.draw(frame), scene) for frame in shown]
    # One palette for all frames: one palette per frame would flicker. A few frames together have
    # every color of the clip.
    some = np.concatenate([np.asarray(item) for item in pictures[:: max(1, len(pictures) // 8)]])
    palette = Image.fromarray(some).quantize(_GIF_COLORS)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    # GIF counts hundredths of a second: ends are rounded, so that errors do not add up.
    ends = [round(100 * (frame + step) / scene.frames_per_s) for frame in shown]
    durations_ms = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    file = io.BytesIO()
    frames[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations_ms,
        loop=0,
        optimize=False,
    )
    return file.getvalue()


def draw_sheet(scene: Scene, *, names: bool = False) -> bytes:
    """Draw frames from the first to the last in one PNG."""
    count = min(_SHEET_FRAMES, scene.num_frames)
    chosen = np.linspace(0, scene.num_frames - 1, count).round().astype(int)
    scale = _NAMES_SCALE if names else 1
    painter = _Painter(scene, _SHEET_SIZE * scale, names=names)
    pictures = [painter.draw(int(frame)) for frame in chosen]
    columns = max(1, _SHEET_COLUMNS // (len(scene.panels) * scale))
    width, height = pictures[0].size
    rows = -(-count // columns)
    sheet = Image.new("RGB", (width * min(columns, count), height * rows), _BACK)
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    file = io.BytesIO()
    _with_header(sheet, scene).save(file, format="PNG", optimize=True)
    return file.getvalue()


_Spots = list[tuple[float, float] | None]  # of joints, in pixels; None for an absent joint
_Viewport = tuple[float, float, float]  # a panel's center in meters, and pixels per meter


def _fit_viewport(panel: Panel, size: int) -> _Viewport:
    """Fit all frames of a panel into a square of `size` pixels."""
    points = np.concatenate([track.joints_TVC[..., :2].reshape(-1, 2) for track in panel.tracks])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return 0.0, 0.0, 1.0
    low, high = np.percentile(points, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    extent = max(float((high - low).max()), 1e-3)
    x, y = ((low + high) / 2).tolist()
    return x, y, (size - 4 * _MARGIN) / extent


class _Painter:
    """Draws frames of one scene, all at one scale."""

    def __init__(self, scene: Scene, size: int, *, names: bool = False) -> None:
        self._scene, self._size, self._names = scene, size, names
        self._viewports = [_fit_viewport(panel, size) for panel in scene.panels]
        self._font = ImageFont.load_default(11)

    def draw(self, frame: int) -> Image.Image:
        """Draw all panels of a frame side by side."""
        width = self._size * len(self._scene.panels)
        picture = Image.new("RGB", (width, self._size + _HEADER), _BACK)
        for number, panel in enumerate(self._scene.panels):
            at = (number * self._size, _HEADER)
            picture.paste(self._panel(panel, self._viewports[number], frame), at)
            text = f"{panel.title}, {frame / self._scene.frames_per_s:.1f} s"
            pen = ImageDraw.Draw(picture)
            pen.text((at[0] + 4, 2), _cut(text, self._size // 6), fill=_INK, font=self._font)
            pen.rectangle(
                (at[0], _HEADER, at[0] + self._size - 1, self._size + _HEADER - 1), None, _LINE
            )
        return picture

    def _panel(self, panel: Panel, viewport: _Viewport, frame: int) -> Image.Image:
        size = self._size * _OVERSAMPLING
        large = Image.new("RGB", (size, size), _BACK)
        pen = ImageDraw.Draw(large)
        spots = [self._spots(track.joints_TVC[frame], viewport) for track in panel.tracks]
        order = sorted(range(len(spots)), key=lambda index: panel.tracks[index].role != "removed")
        for index in order:  # actors above removed bodies
            self._skeleton(pen, spots[index], COLORS[panel.tracks[index].role])
        small = large.resize((self._size, self._size), Image.Resampling.LANCZOS)
        if self._names:
            for spot in spots:
                self._label(ImageDraw.Draw(small), spot)
        return small

    def _spots(self, joints_VC: FloatArray, viewport: _Viewport) -> _Spots:
        half = self._size * _OVERSAMPLING / 2
        center_x, center_y, scale = viewport
        scale *= _OVERSAMPLING
        return [
            (half + (x - center_x) * scale, half - (y - center_y) * scale)
            if np.isfinite((x, y)).all()
            else None
            for x, y in joints_VC[:, :2].tolist()
        ]

    def _skeleton(self, pen: ImageDraw.ImageDraw, spots: _Spots, color: str) -> None:
        for child, parent in self._scene.skeleton.bones:
            ends = (spots[child], spots[parent])
            if ends[0] is not None and ends[1] is not None:
                pen.line((ends[0], ends[1]), fill=color, width=2 * _OVERSAMPLING)
        radius = 2.5 * _OVERSAMPLING
        for spot in spots:
            if spot is not None:
                x, y = spot
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def _label(self, pen: ImageDraw.ImageDraw, spots: _Spots) -> None:
        for name, spot in zip(self._scene.skeleton.joints, spots, strict=True):
            if spot is not None:
                where = (spot[0] / _OVERSAMPLING + 4, spot[1] / _OVERSAMPLING - 5)
                pen.text(where, name, fill=_INK, font=ImageFont.load_default(9))


def _with_header(picture: Image.Image, scene: Scene) -> Image.Image:
    """Add the title and a legend of the colors above a picture."""
    font = ImageFont.load_default(12)
    roles = {track.role for panel in scene.panels for track in panel.tracks}
    shown = [role for role in _ROLE_NAMES if role in roles and len(roles) > 1]
    whole = ImageOps.expand(picture, (0, 36 if shown else 20, 0, 0), _BACK)
    pen = ImageDraw.Draw(whole)
    pen.text((4, 3), _cut(scene.title, picture.width // 7), fill=_INK, font=font)
    x = 4.0
    for role in shown:
        pen.ellipse((x, 23, x + 8, 31), fill=COLORS[role])
        pen.text((x + 12, 20), _ROLE_NAMES[role], fill=_INK, font=font)
        x += 26 + font.getlength(_ROLE_NAMES[role])
    return whole


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
