"""Show a recording or a clip of a dataset: find it, draw it, write it."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from sgnray.data.fetch import dataset_at, holds_dataset
from sgnray.data.store import open_dataset, unknown_clip
from sgnray.errors import InputError, UsageError
from sgnray.prepare.clip import FRAMES_PER_S
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.format_table import stem_of
from sgnray.prepare.readers.raw_files import RawFile
from sgnray.prepare.readers.recordings import read_recording
from sgnray.storage.atomic import choose_format, make_parent, refuse_existing, write_bytes
from sgnray.storage.location import as_folder
from sgnray.view.page import render_player
from sgnray.view.pictures import draw_gif, draw_sheet
from sgnray.view.scene import Scene, scene_of_clip, scene_of_recording

_NUM_SHOWN = 10
_MIN_FPS, _MAX_FPS = 1, 1000
FORMATS = {"gif": ".gif", "png": ".png", "html": ".html"}


def view_clip(
    source: Path | str,
    clip: str | None = None,
    *,
    to: str | None = None,
    out: Path | str | None = None,
    names: bool = False,
    fps: float = FRAMES_PER_S,
    overwrite: bool = False,
) -> Path:
    """Write a clip as an animated GIF, a sheet of frames (png), or a page that plays it (html).

    `source` is a raw recording, a folder or .zip of them, or the folder of a prepared dataset, here
    or at a URI; if it has several clips, `clip` names one. Without `to` the suffix of `out`
    decides; the default is a GIF. Raw recordings are shown next to the prepared clip. `names`
    writes the joints' names into pictures. `fps` is the frame rate at which the clip was recorded.
    Raises UsageError, InputError, OutputError.
    """
    if not _MIN_FPS <= fps <= _MAX_FPS:
        raise UsageError(
            "invalid frame rate",
            where=f"--fps {fps:g}",
            now=f"give the frames per second of the camera, from {_MIN_FPS} to {_MAX_FPS:,}",
        )
    to = choose_format(to, out, FORMATS, default="gif")
    scene = replace(find_scene(source, clip), frames_per_s=fps)
    path = Path(out or f"{PurePosixPath(stem_of(scene.title)).name}.{to}")
    refuse_existing(path, overwrite=overwrite)
    make_parent(path)
    if to == "html":
        content = render_player(scene).encode()
    else:
        content = (draw_gif if to == "gif" else draw_sheet)(scene, names=names)
    write_bytes(path, content)
    return path


def find_scene(source: Path | str, clip: str | None) -> Scene:
    """Find the recording or clip to show, here or at a URI."""
    place = as_folder(source)
    shown = str(place)  # without a password
    if holds_dataset(place):
        dataset = open_dataset(dataset_at(place))
        row = _choose(dataset.clips.names, clip, shown)
        if dataset.offsets[row] == dataset.offsets[row + 1]:
            raise InputError(
                "the clip has no pose",
                where=f"{shown}, {dataset.clips.names[row]}",
                now="choose another clip",
            )
        return scene_of_clip(dataset, row)
    files = find_recordings(source, also=", or the folder of a prepared dataset").files
    named = [] if clip is None else _find_named(files, clip, shown)
    file = named[0] if named else files[_choose([file.path for file in files], clip, shown)]
    return scene_of_recording(file.name, *read_recording(file))


def _find_named(files: Sequence[RawFile], clip: str, source: str) -> list[RawFile]:
    """Find the file with a name, whose suffix and folders may be left out; UsageError if several.

    A whole path goes before a name without its folders.
    """
    clip = unicodedata.normalize("NFC", clip)
    ends = (f"/{clip}", f"/{stem_of(clip)}")
    named = [file for file in files if file.path == clip]
    named = named or [file for file in files if stem_of(file.path) == clip]
    named = named or [file for file in files if f"/{stem_of(file.path)}".endswith(ends)]
    if len(named) > 1:
        paths = list(dict.fromkeys(file.path for file in named))
        now = "name one of them with its folder: "
        if len(paths) < len(named):  # in several .zip files
            paths = [str(file.place) for file in named]
            now = "view one of these instead of the folder: "
        more = ", ..." if len(paths) > _NUM_SHOWN else ""
        raise UsageError(
            f"there are {len(named):,} clips with the name {clip!r}",
            where=source,
            now=f"{now}{', '.join(paths[:_NUM_SHOWN])}{more}",
        )
    return named


def _choose(names: Sequence[str], clip: str | None, source: str) -> int:
    if clip is None and len(names) == 1:
        return 0
    if clip is None:
        raise UsageError(
            f"there are {len(names):,} clips, and only one can be shown",
            where=source,
            now="name it, for example: " + shlex.join(["sgn", "view", source, names[0]]),
        )
    composed = unicodedata.normalize("NFC", clip)  # as names of recordings are
    for name in (clip, composed):
        if name in names:
            return list(names).index(name)
    raise unknown_clip(clip, names, where=source)
