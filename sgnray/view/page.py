"""Pages that need nothing but themselves: no network, no library, no name taken for markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from sgnray.storage.atomic import write_text
from sgnray.view.pack import pack_scene
from sgnray.view.scene import Scene

# The browser itself refuses whatever is not in the page.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def write_player(path: Path, scenes: Sequence[Scene]) -> None:
    """Write one page that plays scenes, several of them from a list; raises OutputError."""
    title = scenes[0].title if len(scenes) == 1 else f"{len(scenes)} clips"
    body = read_asset("sgnray.view", "player.html")
    page = fill_page(
        title,
        Template(body).substitute(title=escape(title), scenes=as_script(_pack(scenes))),
        script='"use strict";\nSgnPlayer.choose(document.querySelector("main"));\n',
    )
    write_text(path, page)


def fill_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Put a body into a whole page, with the look that all pages share and the player."""
    return Template(read_asset("sgnray.view", "page.html")).substitute(
        title=escape(title),
        policy=escape(_POLICY),
        style="\n".join((*_assets(".css"), style)),
        body=body,
        script="\n".join((*_assets(".js"), script)),
    )


def as_script(data: Any) -> str:
    """Write data as JSON that can stand within a script element, whatever names are in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def read_asset(package: str, name: str) -> str:
    """Read a text that is shipped beside the code."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _assets(suffix: str) -> tuple[str, ...]:
    names = {".css": ("look.css", "player.css"), ".js": ("player.js",)}[suffix]
    return tuple(read_asset("sgnray.view", name) for name in names)


def _pack(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    return [pack_scene(scene) for scene in scenes]
