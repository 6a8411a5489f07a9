"""The two charts of report.html, as SVG that takes the page's colors."""

from __future__ import annotations

from collections.abc import Sequence

from sgnray.evaluate.details import Calibration

_WIDTH, _HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34


def views_chart(top1s: Sequence[float]) -> str:
    """Draw the accuracy against the number of views; the numbers are in the points' titles."""
    margin = max(0.002, (max(top1s) - min(top1s)) * 0.2)
    low, high = max(0.0, min(top1s) - margin), min(1.0, max(top1s) + margin)
    spots = [
        (_x(index / max(1, len(top1s) - 1)), _y((top1 - low) / (high - low or 1)))
        for index, top1 in enumerate(top1s)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4">'
        f"<title>{number} {'view' if number == 1 else 'views'}: {top1:.2%}</title></circle>"
        for number, ((x, y), top1) in enumerate(zip(spots, top1s, strict=True), start=1)
    )
    ticks = _axes(f"{low:.1%}", f"{high:.1%}", "1", str(len(top1s)), "views")
    return _svg(f"{ticks}<polyline points='{line}'/>{dots}", "accuracy against number of views")


def reliability_chart(calibration: Calibration) -> str:
    """Draw how often clips of a confidence are right; on the diagonal the two are the same."""
    bars = []
    for item in calibration.bins:
        if item.top1 is None or item.confidence is None:
            continue
        left, right, top = _x(item.low), _x(item.high), _y(item.top1)
        told = f"{item.num_clips:,} clips, sure {item.confidence:.1%}, right {item.top1:.1%}"
        bars.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" '
            f'height="{_y(0) - top:.1f}"><title>{told}</title></rect>'
        )
    diagonal = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" class="ideal"/>'
    ticks = _axes("0 %", "100 %", "0 %", "100 %", "probability")
    return _svg(f"{ticks}{''.join(bars)}{diagonal}", "accuracy against probability")


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _axes(low: str, high: str, first: str, last: str, what: str) -> str:
    under = _HEIGHT - _BOTTOM + 14
    return (
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_y(0)}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 5}" y="{_y(0)}" text-anchor="end">{low}</text>'
        f'<text x="{_LEFT - 5}" y="{_y(1) + 6}" text-anchor="end">{high}</text>'
        f'<text x="{_LEFT}" y="{under}" text-anchor="middle">{first}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{under}" text-anchor="end">{last}</text>'
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{under + 12}" text-anchor="middle">{what}</text>'
    )


def _svg(content: str, label: str) -> str:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{content}</svg>'
