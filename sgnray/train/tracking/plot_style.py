"""The style of all plots; the colors can be distinguished by the color-blind too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, EDGE, FAINT = "#333333", "#999999", "#e3e3e3"
MAIN, ACCENT, THIRD = "#4c78a8", "#e4762c", "#2a9d6f"


def dress(axes: Axes, title: str = "") -> None:
    """Give a panel its title, if any, and thin lines."""
    if title:
        axes.set_title(title, loc="left", fontweight="bold", fontsize=12, color=INK, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(EDGE)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=EDGE)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def percent(share: float) -> str:
    """Write a share as a percentage with one digit."""
    return f"{share:.1%}"
