"""Assemble parts into one dataset folder; memory does not grow with the number of poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnray.data.info import NamedSplits
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped, count_reasons
from sgnray.data.store import write_dataset
from sgnray.errors import EmptyError, Problem, count_of
from sgnray.prepare.pipeline.parts import PreparedPart, map_poses
from sgnray.prepare.pipeline.staging import SORTED_FILE
from sgnray.prepare.plan import RawPlan

PREPARE_VERSION = 1
_NUM_REASONS = 8


def assemble(gathered: PreparedPart, plan: RawPlan, *, aside: Path, ready: Path) -> None:
    """Write clips.arrow, dataset.json and skipped.csv into `ready`; EmptyError without a clip.

    Clips that are not sorted by name are sorted through another file in `aside`.
    """
    skipped = sorted([*plan.skipped, *gathered.skipped], key=lambda item: (item.name, item.reason))
    if gathered.table.num_rows == 0:
        raise _no_clip(skipped)
    gathered = _sort(gathered, aside / SORTED_FILE, plan.skeleton)
    table = gathered.table
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    # Readers refuse such a clip: the dataset could not be opened.
    assert columns["label"].to_numpy().max() < len(plan.class_names), "a label is no class"
    write_dataset(
        ready,
        columns,
        gathered.values_PD,
        dataset=plan.dataset,
        skeleton=plan.skeleton,
        class_names=plan.class_names,
        source=describe_source(plan),
        splits=keep_present(plan.splits, frozenset(columns["name"].to_pylist())),
        skipped=skipped,
    )


def describe_source(plan: RawPlan) -> dict[str, int | str]:
    """Describe the source of a dataset: the same for a folder and a .zip of it, at any time."""
    return {
        "num_files": plan.source.num_files,
        "num_bytes": plan.source.num_bytes,
        "fingerprint": f"sha256:{plan.source.fingerprint}",
        "prepare_version": PREPARE_VERSION,
    }


def _sort(gathered: PreparedPart, sorted_path: Path, skeleton: Skeleton) -> PreparedPart:
    """Sort the clips by name; parts that are already sorted are returned as they are."""
    names = gathered.table.column("name").to_pylist()
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    if (order[1:] > order[:-1]).all():
        return gathered
    offsets = gathered.table.column("frame").combine_chunks().offsets.to_numpy()
    with sorted_path.open("wb") as file:
        for row in order:
            file.write(gathered.values_PD[offsets[row] : offsets[row + 1]].data)
    table = gathered.table.take(pa.array(order)).combine_chunks()
    return PreparedPart(table, map_poses(sorted_path, skeleton), gathered.skipped)


def keep_present(splits: NamedSplits | None, names: frozenset[str]) -> NamedSplits | None:
    """Remove refused clips from the splits."""
    if splits is None:
        return None
    return {
        case: {part: [name for name in listed if name in names] for part, listed in parts.items()}
        for case, parts in splits.items()
    }


def _no_clip(skipped: Sequence[Skipped]) -> EmptyError:
    reasons = count_reasons(skipped)
    return EmptyError(
        f"none of {len(skipped)} recordings can be used",
        where=f"{len(reasons)} reasons, the most frequent first"
        if len(reasons) > 1
        else "all for one reason",
        now="correct what the reasons say, in the files or in what names and labels them",
        problems=[
            Problem(f"{count_of(row.num_files, 'file')}, like {row.example}", row.reason)
            for row in reasons[:_NUM_REASONS]
        ],
    )
