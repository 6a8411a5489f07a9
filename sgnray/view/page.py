"""Self-contained HTML pages that play scenes: no network, no library, every name escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sgnray.data.store import FloatArray
from sgnray.view.scene import Scene

# In packed coordinates: a joint that is absent, and the largest value that int16 can hold.
_ABSENT, _FARTHEST = -32768, 32767
_PER_METER = 1000
HTML = Path(__file__).with_name("html")


def render_player(scene: Scene, template: Path = HTML / "player.html") -> str:
    """Render a page that plays a scene."""
    return render_page(template, title=scene.title, scene=pack_scene(scene))


def render_page(template: Path, **values: Any) -> str:
    """Render a template.

    It can extend the page.html of sgnray.view, which has the common style, and insert a .css or .js
    file of its own folder or of that one, such as the player's, with `asset`. Values are escaped;
    data for a script go through the filter `tojson`, which is safe inside a script element whatever
    names are in it.
    """
    loader = FileSystemLoader([template.parent, HTML])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["percent"] = lambda share, digits=1: f"{share:.{digits}%}"
    environment.filters["thousands"] = lambda number: f"{number:,}"
    # A file of ours, so not escaped.
    environment.globals["asset"] = lambda name: Markup(loader.get_source(environment, name)[0])  # noqa: S704
    return environment.get_template(template.name).render(**values)


def pack_scene(scene: Scene, *, max_frames: int | None = None) -> dict[str, Any]:
    """Return a scene as JSON data; of more than `max_frames`, only every n-th frame.

    Coordinates are base64 of int16 in millimeters, up to 32.767 m. Skeletons with larger
    coordinates, such as pixels of an image, are scaled to fit: only proportions are shown.
    """
    per_unit = _choose_scale(scene)
    step = 1 if max_frames is None else max(1, -(-scene.num_frames // max_frames))
    panels = [
        {
            "title": panel.title,
            "tracks": [
                {"role": track.role, "data": _encode(track.joints_TVC[::step], per_unit)}
                for track in panel.tracks
            ],
        }
        for panel in scene.panels
    ]
    return {
        "title": scene.title,
        "joints": list(scene.skeleton.joints),
        "bones": [list(bone) for bone in scene.skeleton.bones],
        "num_coordinates": scene.skeleton.num_coordinates,
        "num_frames": len(range(0, scene.num_frames, step)),
        "fps": scene.frames_per_s / step,
        "panels": panels,
    }


def _choose_scale(scene: Scene) -> float:
    """Choose millimeters unless half of all coordinates would be too large for them."""
    tracks = [track.joints_TVC for panel in scene.panels for track in panel.tracks]
    known = np.abs(np.concatenate([track[np.isfinite(track)] for track in tracks]))
    if known.size == 0 or np.median(known) * _PER_METER <= _FARTHEST:
        return _PER_METER
    return _FARTHEST / float(known.max())


def _encode(joints_TVC: FloatArray, per_unit: float) -> str:
    """Encode coordinates as little-endian int16 in base64."""
    is_present = np.isfinite(joints_TVC)
    scaled = np.where(is_present, joints_TVC, 0).astype(np.float64) * per_unit
    clipped = np.clip(np.rint(scaled), -_FARTHEST, _FARTHEST)
    packed = np.where(is_present, clipped, _ABSENT).astype("<i2")
    return base64.b64encode(packed.tobytes()).decode("ascii")
