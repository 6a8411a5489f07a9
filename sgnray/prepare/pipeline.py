"""Raw files to one dataset: parts in the process or on Ray, then one folder moved into place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from sgnray.data.protocols import split_counts
from sgnray.data.store import (
    CLIPS_FILE,
    INFO_FILE,
    SKIPPED_FILE,
    DatasetInfo,
    open_dataset,
    read_info,
)
from sgnray.errors import ClusterError, InputError, SgnError, UsageError
from sgnray.files import output_errors
from sgnray.prepare.assemble import assemble, describe_source, read_skipped
from sgnray.prepare.detect import RawPlan, Skipped, detect
from sgnray.prepare.parts import PartJob, plan_parts, prepare_part, read_part
from sgnray.prepare.workplace import move_into_place, ready_folder, workplace, write_file

log = logging.getLogger(__name__)

_OWN_FILES = {CLIPS_FILE, INFO_FILE, SKIPPED_FILE}

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareResult:
    """A prepared dataset; `splits` counts (training, test) clips of each case it has."""

    folder: Path
    info: DatasetInfo
    reused: bool
    skipped: tuple[Skipped, ...]
    splits: dict[str, tuple[int, int]]


def prepare_dataset(
    raw: Path,
    *,
    out: Path | None = None,
    data_dir: Path = Path("data"),
    workers: int = 0,
    address: str | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> PrepareResult:
    """Prepare a raw folder or .zip into `out`, by default data_dir/<dataset>.

    `workers` Ray tasks at a time, 0 works in the process; the result is the same to the byte.
    `on_progress` is told (files done, files) now and then. The same raw files are not prepared
    twice: a finished dataset is reused, an interrupted preparation is continued. Raises
    UsageError if `out` holds something else and not `overwrite`, InputError if no clip survives,
    OutputError if the disk refuses.
    """
    plan = detect(raw)
    shown = out or data_dir / plan.dataset
    target = shown.resolve()
    _check_apart(raw, target)
    if _is_reusable(target, plan, overwrite=overwrite):
        return _result(shown, reused=True)
    jobs = plan_parts(plan)
    key = hashlib.sha256(f"{describe_source(plan)} {plan.stamp} {plan.class_names}".encode())
    with workplace(target, key=key.hexdigest()) as folder:
        # Asked again, now that no other process can write it, and a cut-off replacement is undone.
        if _is_reusable(target, plan, overwrite=overwrite):
            return _result(shown, reused=True)
        paths = [folder / f"part-{index:05d}.arrow" for index in range(len(jobs))]
        progress = _Progress(len(plan.files), on_progress)
        todo = _find_todo(list(zip(jobs, paths, strict=True)), progress)
        run = _run_on_ray(todo, workers, address, progress) if workers else _run(todo, progress)
        for path, data in run:
            with output_errors(target):
                write_file(path, data)
        with output_errors(target):
            assemble(paths, plan, aside=folder, ready=ready_folder(folder))
            move_into_place(folder, target)
    return _result(shown, reused=False)


def _is_reusable(target: Path, plan: RawPlan, *, overwrite: bool) -> bool:
    """Tell if `target` is already this dataset; UsageError if something else is in the way."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    strangers = {item.name for item in target.iterdir()} - _OWN_FILES if target.is_dir() else set()
    if not (target / INFO_FILE).is_file():
        found, now = "something that is no dataset", "choose another folder with --out"
    elif not overwrite:
        try:
            if read_info(target).source == describe_source(plan):
                return True
            found = "a dataset made of other raw files"
        except InputError as error:
            found = error.what
        now = "choose another folder with --out, or replace this one with --overwrite"
    elif strangers:  # replacing the folder would remove them
        found = f"a dataset, and beside it {', '.join(sorted(strangers)[:3])}"
        now = "move what is no part of the dataset away, or choose another folder with --out"
    else:
        return False
    raise UsageError(f"the output exists already: {found}", where=str(target), now=now)


def _check_apart(raw: Path, target: Path) -> None:
    """UsageError where the dataset would lie in the raw files, or they in it."""
    source = raw.resolve()
    if target == source or source in target.parents or target in source.parents:
        raise UsageError(
            "the dataset and the raw files must lie apart",
            where=f"{raw} and {target}",
            now="choose another folder with --out",
        )


def _result(folder: Path, *, reused: bool) -> PrepareResult:
    dataset = open_dataset(folder)
    return PrepareResult(
        folder=folder,
        info=dataset.info,
        reused=reused,
        skipped=read_skipped(folder / SKIPPED_FILE),
        splits=split_counts(dataset.info.dataset, dataset.clips),
    )


class _Progress:
    """Counts files that are done, and tells whoever asked."""

    def __init__(self, num_files: int, on_progress: OnProgress | None) -> None:
        self._num_done = 0
        self._num_files = num_files
        self._on_progress = on_progress

    def add(self, num_files: int = 1) -> None:
        self._num_done += num_files
        if self._on_progress is not None:
            self._on_progress(self._num_done, self._num_files)


def _find_todo(
    parts: Sequence[tuple[PartJob, Path]], progress: _Progress
) -> list[tuple[PartJob, Path]]:
    """Leave out the parts that an interrupted preparation has finished."""
    todo = []
    for job, path in parts:
        if _is_finished(path):
            progress.add(len(job.files))
        else:
            todo.append((job, path))
    if len(todo) < len(parts):
        log.info("continuing: %d of %d parts are done", len(parts) - len(todo), len(parts))
    return todo


def _is_finished(path: Path) -> bool:
    # A part is renamed when it is whole, but a power cut may still have torn it.
    try:
        with pa.memory_map(str(path)) as source:
            read_part(source)
    except (OSError, pa.ArrowException):
        return False
    return True


def _run(
    todo: Sequence[tuple[PartJob, Path]], progress: _Progress
) -> Iterator[tuple[Path, pa.Buffer]]:
    for job, path in todo:
        yield path, prepare_part(job, progress.add)


def _run_on_ray(
    todo: Sequence[tuple[PartJob, Path]], workers: int, address: str | None, progress: _Progress
) -> Iterator[tuple[Path, bytes]]:
    """Run parts as Ray tasks, never more than `workers` at a time."""
    if not todo:
        return
    import ray

    from sgnray.cluster import connected

    with connected(address, num_workers=workers):
        task = ray.remote(num_cpus=1)(_prepare_remotely)
        waiting = iter(todo)
        running = {task.remote(job): (job, path) for job, path in islice(waiting, workers)}
        try:
            while running:
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                job, path = running.pop(done)
                running |= {task.remote(job): (job, path) for job, path in islice(waiting, 1)}
                outcome = ray.get(done)
                if isinstance(outcome, SgnError):
                    raise outcome
                yield path, outcome
                progress.add(len(job.files))
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"a worker failed: {str(error).strip().splitlines()[-1]}",
                where="the Ray cluster",
                now="run this again: it continues with the parts that are missing",
            ) from error


def _prepare_remotely(job: PartJob) -> bytes | SgnError:
    """Prepare a part on a worker; an error that the user can understand is a result."""
    try:
        data: bytes = prepare_part(job).to_pybytes()
    except SgnError as error:
        return error
    return data
