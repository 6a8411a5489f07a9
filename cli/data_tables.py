"""What is in a dataset, as tables for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.progress_bar import ProgressBar

from .tables import SafeTable, facts, make_table, scaled, spaced

if TYPE_CHECKING:
    from pathlib import Path

    from sgnray.data.describe import ClassContent, DatasetContent, Lengths, Numbers
    from sgnray.data.info import DatasetInfo
    from sgnray.data.skipped import SkippedContent
    from sgnray.prepare import PrepareResult

_WIDTH = 80
_BAR_WIDTH = 40
_MAX_CLASSES = 24  # if there are more, only the extremes are listed
_NUM_EXTREMES = 5
_NUM_NAMES = 5  # of classes, in a headline
_MAX_REASONS = 10
_SHORT_DIGEST = len("sha256:") + 16
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def content(content: DatasetContent, *, is_whole: bool = False) -> list[RenderableType]:
    """Return a dataset's content; every class is listed if there are few, or with `is_whole`."""
    info = content.info
    parts = [
        _headline(info),
        _facts(content),
        _cases(content.splits),
        *_classes(content.classes, is_whole=is_whole),
        _histogram(content.lengths),
    ]
    lines = spaced(parts)
    return [*lines, *_left_out(content.skipped, content.folder)]


def prepared(result: PrepareResult) -> list[RenderableType]:
    """Return the counts of a prepared dataset, and why some clips were left out."""
    from sgnray.data.skipped import count_reasons

    how = "already prepared" if result.reused else "written"
    names = result.info.class_names
    shown = ", ".join([*names[:_NUM_NAMES], *(["..."] if len(names) > _NUM_NAMES else [])])
    headline = f"{_headline(result.info)}: {shown}; {how}: {result.folder}"
    lines = spaced([headline, _cases(result.splits)])
    return [*lines, *_left_out(count_reasons(result.skipped), result.folder)]


def prepared_data(result: PrepareResult) -> dict[str, Any]:
    """Return what `prepared` shows, for programs."""
    info = result.info
    return {
        "folder": str(result.folder),
        "dataset": info.dataset,
        "reused": result.reused,
        "num_clips": info.num_clips,
        "num_poses": info.num_poses,
        "class_names": list(info.class_names),
        "checksum": info.checksum,
        "splits": _splits_data(result.splits),
        "skipped": [{"name": item.name, "reason": item.reason} for item in result.skipped],
    }


def as_data(content: DatasetContent) -> dict[str, Any]:
    """Return all that is known of a dataset, for programs."""
    own = asdict(content)
    info = own.pop("info").model_dump(exclude={"class_names"})  # they are in classes
    return {**info, **own, "splits": _splits_data(content.splits)}


def _headline(info: DatasetInfo) -> str:
    return (
        f"{info.dataset}: {info.num_clips:,} clips, {info.num_poses:,} poses, "
        f"{len(info.class_names)} classes"
    )


def _facts(content: DatasetContent) -> RenderableType:
    info, skeleton = content.info, content.info.skeleton
    rows = {
        "folder": str(content.folder),
        "size": f"{size(content.size_bytes)}, format version {info.format_version}",
        "skeleton": f"{skeleton.name}: {skeleton.num_joints} joints, "
        f"{' '.join('xyz'[: skeleton.num_coordinates])}",
    }
    for name in ("subjects", "cameras", "setups"):
        rows[name] = _brief(getattr(content, name))
    share = content.num_two_bodies / info.num_clips
    return facts(
        rows
        | {
            "two bodies": f"{content.num_two_bodies:,} clips, {share:.1%}",
            "source": _source(info.source) or "unknown",
            "sha256": info.checksum.removeprefix("sha256:"),
        }
    )


def _brief(numbers: Numbers) -> str:
    if not numbers.known:
        return "unknown"
    first, last = numbers.known[0], numbers.known[-1]
    text = f"{len(numbers.known)}, numbered {first}" + (f" to {last}" if last > first else "")
    unknown = numbers.num_unknown
    return text + (f"; unknown in {unknown:,} clips" if unknown else "")


def _source(source: Mapping[str, Any]) -> str:
    parts = []
    for key, value in source.items():
        if key == "num_bytes" and isinstance(value, int):
            parts.append(size(value))
        elif key.startswith("num_") and isinstance(value, int):
            parts.append(f"{value:,} {key.removeprefix('num_').replace('_', ' ')}")
        elif isinstance(value, (str, int)):
            is_digest = str(value).startswith("sha256:")
            shown = str(value)[:_SHORT_DIGEST] if is_digest else value
            parts.append(f"{key.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def _classes(classes: Sequence[ClassContent], *, is_whole: bool) -> list[RenderableType]:
    if is_whole or len(classes) <= _MAX_CLASSES:
        return [_side_by_side(classes)]
    ranked = sorted(classes, key=lambda row: row.num_clips)
    parts: list[RenderableType] = []
    for title, rows in (
        ("fewest clips", ranked[:_NUM_EXTREMES]),
        ("most clips", ranked[: -_NUM_EXTREMES - 1 : -1]),
    ):
        table = make_table(title, "label>", "clips>")
        for row in rows:
            table.add_row(row.name, str(row.label), f"{row.num_clips:,}")
        parts.append(table)
    return [*parts, f"all {len(classes)} classes: sgn data -v"]


def _side_by_side(classes: Sequence[ClassContent]) -> SafeTable:
    """List classes by label, column by column, in as many columns as fit into a line."""
    rows = [(str(row.label), row.name, f"{row.num_clips:,}") for row in classes]
    heads = ("label", "class", "clips")
    widest = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    num_columns = max(1, min(3, _WIDTH // (sum(widest) + 2 * len(heads)), len(rows)))
    height = -(-len(rows) // num_columns)
    table = make_table(*["label>", "class", "clips>"] * num_columns)
    for index in range(height):
        line = rows[index::height]
        table.add_row(*(cell for row in line for cell in row))
    return table


def _histogram(lengths: Lengths) -> SafeTable:
    title = (
        f"min {lengths.min:,}, median {lengths.median:,.1f}, "
        f"mean {lengths.mean:,.1f}, max {lengths.max:,}"
    )
    table = make_table("frames>", "clips>", title)
    most = max(row.num_clips for row in lengths.bins)
    for row in lengths.bins:
        frames = f"{row.first:,}" + (f" to {row.last:,}" if row.last > row.first else "")
        bar = ProgressBar(most, row.num_clips, _BAR_WIDTH, finished_style="bar.complete")
        table.add_row(frames, f"{row.num_clips:,}", bar if row.num_clips else "")
    return table


def _cases(splits: Mapping[str, tuple[int, int]]) -> RenderableType:
    if not splits:
        return "no case: the dataset has no split into training and test clips"
    table = make_table("case", "training clips>", "test clips>")
    for case, (num_train, num_test) in splits.items():
        table.add_row(case, f"{num_train:,}", f"{num_test:,}")
    return table


def _splits_data(splits: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    return {
        case: {"train": num_train, "test": num_test}
        for case, (num_train, num_test) in splits.items()
    }


def _left_out(skipped: Sequence[SkippedContent], folder: Path) -> list[RenderableType]:
    if not skipped:
        return []
    table = make_table("left out because", "files>", "for example")
    for row in skipped[:_MAX_REASONS]:
        table.add_row(row.reason, f"{row.num_files:,}", row.example)
    more = len(skipped) - _MAX_REASONS
    text = f"{more} more reasons, and " if more > 0 else ""
    return ["", table, f"{text}all files: {folder / 'skipped.csv'}"]


def size(num_bytes: int) -> str:
    """Write a number of bytes."""
    return scaled(num_bytes, _UNITS)
