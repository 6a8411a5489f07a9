"""Raw data to one dataset: parts in the process or on Ray, then one folder moved into place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnray.data.info import INFO_FILE, DatasetInfo, NamedSplits, read_info
from sgnray.data.progress import OnProgress, ignore_progress
from sgnray.data.protocols import split_counts
from sgnray.data.skeleton import Skeleton
from sgnray.data.skipped import Skipped, count_reasons, read_skipped
from sgnray.data.store import DATASET_FILES, SKIPPED_FILE, open_dataset, write_dataset
from sgnray.distributed.cluster import is_at_hand
from sgnray.distributed.pool import run_on_actors
from sgnray.distributed.resources import WorkerRequest, check_without_ray
from sgnray.errors import EmptyError, InputError, Problem, UsageError, count_of
from sgnray.prepare.parts import Journal, PreparedPart, map_poses, prepare_part
from sgnray.prepare.plan import RawPlan
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.staging import (
    SORTED_FILE,
    hold_staging,
    move_into_place,
    ready_folder,
)
from sgnray.storage.atomic import output_errors, refuse_uri
from sgnray.storage.location import Location, locate, resolve
from sgnray.storage.lock import partial_folder

log = logging.getLogger(__name__)

PREPARE_VERSION = 1
# What one process reads while Ray starts and stops (6 s), or connects and starts workers.
_STARTING_BYTES = 1500 * 10**6
_CONNECTING_BYTES = 250 * 10**6
_NUM_REASONS = 8

Raw = str | Path


@dataclass(frozen=True)
class PrepareResult:
    """A prepared dataset; `splits` counts (training, test) clips of each case it has."""

    folder: Path
    info: DatasetInfo
    reused: bool
    skipped: tuple[Skipped, ...]
    splits: dict[str, tuple[int, int]]


def prepare_dataset(
    raw: Raw | Sequence[Raw],
    *,
    out: Path | str | None = None,
    data_dir: Path | str = Path("data"),
    workers: int = 0,
    address: str | None = None,
    request: WorkerRequest | None = None,
    overwrite: bool = False,
    name_pattern: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> PrepareResult:
    """Prepare raw data into `out`, by default data_dir/<dataset>.

    `raw` is a path or a URI that pyarrow.fs knows; several make one dataset. `workers` is the
    number of Ray actors; 0 or a small input uses this process, and the result is the same to the
    byte. `request` is what each actor requests from the cluster, and how long to wait for it.
    `name_pattern` reads the names of your own recordings, such as a{label}_s{subject}_v{camera}.
    `on_progress` gets (clips done, clips) from time to time. The same raw data are not prepared
    twice: a finished dataset is reused, an interrupted preparation is resumed. Raises UsageError if
    `out` has files that are not ours, or another dataset and not `overwrite`, InputError if no clip
    can be used, OutputError if writing fails.
    """
    if workers == 0:
        check_without_ray(address, request)
    refuse_uri(out or data_dir)
    places = [locate(item) for item in ([raw] if isinstance(raw, str | Path) else raw)]
    plan = detect(places, name_pattern)
    shown = Path(out or Path(data_dir, plan.dataset))
    target = resolve(shown)
    shown = shown.expanduser()  # as `target`, but not absolute if it was not
    _check_apart(places, target)
    is_reusable = _is_reusable(target, plan, overwrite=overwrite)
    if is_reusable and not partial_folder(target).exists():  # else a killed process left it
        log.info("the raw data are assumed unchanged: same names and sizes")
        return _result(shown, reused=True)
    key = hashlib.sha256(
        f"{_describe_source(plan)} {plan.source.stamp} {plan.class_names}".encode()
    )
    with hold_staging(target, shown=shown, key=key.hexdigest()) as folder:
        # Check again: now no other process can write it, and an interrupted move is undone.
        if _is_reusable(target, plan, overwrite=overwrite):
            return _result(shown, reused=True)
        with output_errors(shown):
            journal = Journal(folder, plan)
        with closing(journal):
            for part in _run(plan, journal.num_finished, workers, address, request, on_progress):
                with output_errors(shown):
                    journal.append(part)
            with output_errors(shown):
                _assemble(journal.gather(), plan, aside=folder, ready=ready_folder(folder))
                move_into_place(folder, target)
    return _result(shown, reused=False)


def _run(
    plan: RawPlan,
    num_finished: int,
    workers: int,
    address: str | None,
    request: WorkerRequest | None,
    on_progress: OnProgress,
) -> Iterator[PreparedPart]:
    """Carry out the jobs that an interrupted preparation has not finished, here or on Ray."""
    if num_finished:
        log.info("continuing: %d of %d parts are done", num_finished, len(plan.jobs))
    num_done = sum(job.num_clips for job in plan.jobs[:num_finished])

    def on_clips(num_clips: int) -> None:
        nonlocal num_done
        num_done += num_clips
        on_progress(num_done, plan.num_clips)

    if num_done:
        on_clips(0)
    todo, skeleton = plan.jobs[num_finished:], plan.skeleton
    enough_bytes = _CONNECTING_BYTES if workers and is_at_hand(address) else _STARTING_BYTES
    if not workers or plan.source.num_bytes < enough_bytes:
        if workers:
            log.info("reading in this process: small inputs are faster without Ray")
        for job in todo:
            yield prepare_part(job, skeleton, lambda: on_clips(1))
    elif todo:
        yield from run_on_actors(
            lambda job, _: prepare_part(job, skeleton),
            todo,
            workers=workers,
            address=address,
            request=request,
            now="rerun the same command to resume with the missing parts",
            on_done=lambda job: on_clips(job.num_clips),
        )


def _is_reusable(target: Path, plan: RawPlan, *, overwrite: bool) -> bool:
    """Return whether `target` is already this dataset; UsageError for anything else there."""
    names = {item.name for item in target.iterdir()} if target.is_dir() else set()
    if not target.exists() or (target.is_dir() and not names):
        return False
    if not (target / INFO_FILE).is_file():
        found, now = "something that is not a dataset", "choose another folder with --out"
    elif not overwrite:
        try:
            info = read_info(target)
            source = _describe_source(plan)
            if info.source == source:
                if _has_same_splits(info, plan):
                    return True
                found = "a dataset with other splits"
            elif {**info.source, "prepare_version": PREPARE_VERSION} == source:
                found = "a dataset from these raw files, prepared by another version of sgnray"
            else:
                found = "a dataset from other raw files or another description"
        except InputError as error:
            found = error.what
        now = "choose another folder with --out, or replace this one with --overwrite"
    elif unexpected := names.difference(DATASET_FILES):  # they would be removed, too
        found = f"a dataset, and also {', '.join(sorted(unexpected)[:3])}"
        now = "move the files that do not belong to it, or choose another folder with --out"
    else:
        return False
    raise UsageError(f"the output exists already: {found}", where=str(target), now=now)


def _has_same_splits(info: DatasetInfo, plan: RawPlan) -> bool:
    """Compare the source's own splits; those of a dataset are without the refused clips."""
    found = info.splits or {}
    known = {name for parts in found.values() for names in parts.values() for name in names}
    return info.splits == _keep_present(plan.splits, frozenset(known))


def _check_apart(places: Sequence[Location], target: Path) -> None:
    """Raise UsageError if the dataset would be inside the raw folder, or contain it."""
    for place in places:
        source = Path(place.path).resolve()
        is_within = target == source or source in target.parents or target in source.parents
        if place.is_local and is_within:
            raise UsageError(
                "the dataset and the raw files must be in separate folders",
                where=f"{source} and {target}",
                now="choose another folder with --out",
            )


def _assemble(gathered: PreparedPart, plan: RawPlan, *, aside: Path, ready: Path) -> None:
    """Write clips.arrow, dataset.json and skipped.csv into `ready`; EmptyError without a clip.

    Memory does not grow with the number of poses: clips that are not sorted by name are sorted
    through another file in `aside`.
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
        source=_describe_source(plan),
        splits=_keep_present(plan.splits, frozenset(columns["name"].to_pylist())),
        skipped=skipped,
    )


def _describe_source(plan: RawPlan) -> dict[str, int | str]:
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


def _keep_present(splits: NamedSplits | None, names: frozenset[str]) -> NamedSplits | None:
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


def _result(folder: Path, *, reused: bool) -> PrepareResult:
    dataset = open_dataset(folder)
    result = PrepareResult(
        folder=folder,
        info=dataset.info,
        reused=reused,
        skipped=read_skipped(folder / SKIPPED_FILE),
        splits=split_counts(dataset.info.dataset, dataset.clips),
    )
    _warn_of_missing_clips(result)
    num_single = int((dataset.clips.num_frames == 1).sum())
    if 2 * num_single > result.info.num_clips:
        log.warning(
            "%d of %d clips have a single frame: if a recording has a file for each frame, put "
            "them into its own folder, named by the number of the frame",
            num_single,
            result.info.num_clips,
        )
    return result


def _warn_of_missing_clips(result: PrepareResult) -> None:
    """Warn if most clips were left out, or all of a part of a case that the source defines."""
    num_left_out = len(result.skipped)
    if num_left_out > result.info.num_clips:
        reason = count_reasons(result.skipped)[0]
        log.warning(
            "%d of %d recordings were left out, %d of them for this reason: %s",
            num_left_out,
            num_left_out + result.info.num_clips,
            reason.num_files,
            reason.reason,
        )
    if result.info.splits is None:  # few recordings need not fit each published case
        return
    for case, parts in result.splits.items():
        for part, num_clips in zip(("training", "test"), parts, strict=True):
            if num_clips == 0:
                log.warning("the case %s has no %s clips", case, part)
