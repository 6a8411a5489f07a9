"""The style of all plots; color-blind readers can also distinguish the colors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sgnray.train.run_log import quiet_logger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, EDGE, FAINT = "#333333", "#999999", "#e3e3e3"
MAIN, ACCENT, THIRD = "#4c78a8", "#e4762c", "#2a9d6f"


def style_axes(axes: Axes, title: str = "") -> None:
    """Set the title of a panel, if any, and thin lines."""
    if title:
        axes.set_title(title, loc="left", fontweight="bold", fontsize=12, color=INK, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(EDGE)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=EDGE)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def new_figure(size_inches: tuple[float, float], *, dpi: int, h_pad: float) -> Figure:
    """Return a white sheet that fits its panels; no window, no global state."""
    # At its import, matplotlib warns if it cannot keep its cache in HOME.
    with quiet_logger("matplotlib", logging.ERROR):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=h_pad, w_pad=0.12)
    return Figure(figsize=size_inches, dpi=dpi, facecolor="white", layout=layout)


def legend_above(axes: Axes, *, ncols: int, **spacing: Any) -> None:
    """Put the legend above the panel, where no curve runs."""
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=ncols,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
        **spacing,
    )
