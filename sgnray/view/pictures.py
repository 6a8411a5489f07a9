"""A scene as an animated GIF at its own speed, or as a sheet of frames."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sgnray.view.draw import BACK, Painter, with_head
from sgnray.view.scene import FRAMES_PER_S, Scene

_GIF_SIZE, _GIF_FPS, _GIF_FRAMES, _GIF_COLORS = 320, 15, 240, 32
_SHEET_SIZE, _SHEET_COLUMNS, _SHEET_FRAMES = 200, 4, 12
_NAMES_ROOM = 2  # times the size, where names are to be read


def draw_gif(scene: Scene, *, names: bool = False) -> bytes:
    """Draw an animation that takes as long as the clip did; long clips are thinned."""
    step = max(round(FRAMES_PER_S / _GIF_FPS), -(-scene.num_frames // _GIF_FRAMES))
    painter = Painter(scene, _GIF_SIZE * (_NAMES_ROOM if names else 1), names=names)
    shown = range(0, scene.num_frames, step)
    pictures = [with_head(painter.draw(frame), scene) for frame in shown]
    # One palette for all, of a frame that has everything: a palette each would flicker.
    palette = _beneath(pictures).quantize(_GIF_COLORS)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    # GIF counts hundredths of a second: rounded so that the errors do not add up.
    ends = [round(100 * (frame + step) / FRAMES_PER_S) for frame in shown]
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
    """Draw frames from the first to the last on one PNG."""
    count = min(_SHEET_FRAMES, scene.num_frames)
    chosen = np.linspace(0, scene.num_frames - 1, count).round().astype(int)
    room = _NAMES_ROOM if names else 1
    painter = Painter(scene, _SHEET_SIZE * room, names=names)
    pictures = [painter.draw(int(frame)) for frame in chosen]
    columns = max(1, _SHEET_COLUMNS // (len(scene.panels) * room))
    width, height = pictures[0].size
    rows = -(-count // columns)
    sheet = Image.new("RGB", (width * min(columns, count), height * rows), BACK)
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    file = io.BytesIO()
    with_head(sheet, scene).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _beneath(pictures: list[Image.Image]) -> Image.Image:
    """Join a few frames, in which every color of the clip occurs."""
    some = pictures[:: max(1, len(pictures) // 8)]
    joined = Image.new("RGB", (some[0].width, sum(picture.height for picture in some)))
    top = 0
    for picture in some:
        joined.paste(picture, (0, top))
        top += picture.height
    return joined
