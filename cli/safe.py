"""Foreign text for a terminal: what could move the cursor or turn the line around is shown."""

from __future__ import annotations

import unicodedata

from rich.console import RenderableType
from rich.table import Table

# Control characters, marks that reverse the order of writing, lone surrogates.
_UNSAFE = ("Cc", "Cf", "Cs")


def clean(text: str) -> str:
    """Replace unsafe characters by their escapes, but for line ends."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class SafeTable(Table):
    """A table whose cells are foreign text."""

    def add_row(self, *cells: RenderableType | None, **options: object) -> None:
        """Add a row of cleaned cells."""
        safe = [clean(cell) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*safe, **options)  # type: ignore[arg-type]
