"""The files of a run, and the recipe and the dataset that it belongs to."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgnray.checkpoints.checkpoint import Checkpoint, load_checkpoint
from sgnray.checkpoints.claim import Runs, check_unused, claimed_folder, older_folders
from sgnray.config import Recipe, dump_recipe, load_recipe, recipe_hash
from sgnray.data.info import DatasetInfo
from sgnray.data.store import SkeletonDataset
from sgnray.errors import CheckpointError, CorruptError, RecipeError, RunError, UsageError
from sgnray.metric_keys import Metrics
from sgnray.storage.atomic import make_parent, write_bytes, write_text
from sgnray.storage.location import Location, as_folder
from sgnray.storage.mirror import display_name, fetched, quoted_name

log = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
ENVIRONMENT_VERSION = 1
METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.json"
LOG_FILE = "log.txt"
CHECKPOINTS_DIR = "checkpoints"
CHECKPOINT_FILE = "checkpoint.pt"

# The newest, and the one before it in case the newest is corrupt.
_NUM_CHECKPOINTS_KEPT = 2
_IN_RUN = re.compile(rf"/{CHECKPOINTS_DIR}/epoch-\d+(/{CHECKPOINT_FILE})?$")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of the checkpoints, one folder per epoch."""
        return self.path / CHECKPOINTS_DIR

    def checkpoint_path(self, epoch: int) -> Path:
        """Return the file of an epoch's checkpoint, epochs counted from 1."""
        return self.checkpoints_dir / f"epoch-{epoch:04d}" / CHECKPOINT_FILE

    def newest_checkpoint(self) -> tuple[Path, Checkpoint] | None:
        """Find the newest intact checkpoint; None if there is none yet.

        A corrupt one is reported and skipped. CheckpointError if all are corrupt or the newest is
        invalid in another way: starting over would lose them.
        """
        paths = [self.checkpoint_path(epoch) for epoch in reversed(self._epochs())]
        paths = [path for path in paths if path.is_file()]
        for path in paths:
            try:
                return path, load_checkpoint(path)
            except CorruptError as error:
                log.warning("%s: %s", display_name(path), error.what)
        if paths:
            raise CheckpointError(
                "no checkpoint of the run is complete",
                where=display_name(self.checkpoints_dir),
                now="remove the run to start over, or choose another --name",
            )
        return None

    def require_checkpoint(self) -> tuple[Path, Checkpoint]:
        """Return the newest intact checkpoint; CheckpointError if there is none yet.

        UsageError if this is another folder than that of a run.
        """
        newest = self.newest_checkpoint()
        if newest is None and not (self.path / RECIPE_FILE).is_file():
            raise UsageError(
                "this is not the folder of a run",
                where=display_name(self.path),
                now="name a folder that sgn train has written; without one, the newest run is used",
            )
        if newest is None:
            raise CheckpointError(
                "the folder has no complete checkpoint",
                where=display_name(self.checkpoints_dir),
                now="name a run folder; sgn train writes a checkpoint to it after each epoch",
            )
        return newest

    def environment(self) -> dict[str, Any] | None:
        """Read environment.json; None if there is none."""
        path = self.path / ENVIRONMENT_FILE
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version = content["format_version"]
            is_whole = {"dataset_checksum", "dataset_dir", "resumed"} <= content.keys()
        except (ValueError, TypeError, KeyError):
            version, is_whole = ENVIRONMENT_VERSION, False
        if not is_whole or version != ENVIRONMENT_VERSION:
            what = f"has format version {version}" if is_whole else "is corrupt"
            raise RunError(
                f"the record of the run {what}",
                where=display_name(path),
                now="update sgnray if it is newer, "
                "else remove this file: the checkpoints do not need it",
            )
        return content

    def write_metrics(self, history: Sequence[Metrics]) -> None:
        """Rewrite metrics.jsonl: one line per finished epoch."""
        lines = [
            json.dumps({"epoch": epoch, **metrics}, allow_nan=False) + "\n"
            for epoch, metrics in enumerate(history, start=1)
        ]
        write_text(self.path / METRICS_FILE, "".join(lines))

    def newest_checkpoint_bytes(self) -> bytes | None:
        """Return the content of the newest intact checkpoint; None if there is none."""
        newest = self.newest_checkpoint()
        return None if newest is None else newest[0].read_bytes()

    def keep_checkpoint(self, epoch: int, content: bytes) -> None:
        """Write the checkpoint of the epoch just finished; keep it and the one before it only.

        Later ones are removed too: they are corrupt, else training would have resumed from them.
        """
        path = self.checkpoint_path(epoch)
        make_parent(path)
        write_bytes(path, content)
        kept = [known for known in self._epochs() if known <= epoch][-_NUM_CHECKPOINTS_KEPT:]
        for known in self._epochs():
            if known not in kept:
                shutil.rmtree(self.checkpoint_path(known).parent, ignore_errors=True)

    def _epochs(self) -> list[int]:
        """List the epochs that have a checkpoint folder, ascending."""
        names = (path.name for path in self.checkpoints_dir.glob("epoch-*"))
        numbers = (name.removeprefix("epoch-") for name in names)
        return sorted(int(number) for number in numbers if number.isdecimal())

    def record_environment(self, environment: dict[str, Any]) -> None:
        """Write environment.json; a resuming launch is appended to the earlier ones."""
        first = self.environment()
        if first is None:
            content = {"format_version": ENVIRONMENT_VERSION, **environment, "resumed": []}
        else:
            content = {**first, "resumed": [*first["resumed"], environment]}
        write_text(self.path / ENVIRONMENT_FILE, json.dumps(content, indent=2) + "\n")


@contextmanager
def claim_run(
    runs_dir: Runs, name: str | None, recipe: Recipe, dataset: SkeletonDataset
) -> Iterator[RunFolder]:
    """Create the run's folder or resume it, locked against other processes.

    RunError if it belongs to another recipe or dataset, or is in use; UsageError for a name
    that is not a plain folder name.
    """
    with claimed_folder(runs_dir, name, default=default_run_name(runs_dir, recipe)) as path:
        check_owner(path, recipe, dataset)
        if not (path / RECIPE_FILE).exists():
            write_text(path / RECIPE_FILE, dump_recipe(recipe))
        yield RunFolder(path)


def read_folder(path: Path | Location) -> Path:
    """Return the local path of a run or of a file in it; a run at a URI is fetched first."""
    if isinstance(path, Path):
        return path
    within = _IN_RUN.search(path.path)
    if within is None:
        return fetched(path)
    return fetched(path.at(path.path[: within.start()])) / within[0][1:]


def newest_run(runs_dir: Runs) -> RunFolder:
    """Return the run that finished an epoch last; UsageError if no run has a checkpoint.

    It may also be in a folder of `runs_dir`, such as that of a search or of the demo.
    """
    place = as_folder(runs_dir)
    newest = _newest_at(place) if isinstance(place, Location) else _newest_in(place)
    if newest is None:
        raise UsageError(
            "no run with a checkpoint found",
            where=str(place),
            now="train one: sgn train, or name a run folder or a checkpoint",
        )
    return RunFolder(newest)


def _newest_in(runs_dir: Path) -> Path | None:
    below = f"{CHECKPOINTS_DIR}/*/{CHECKPOINT_FILE}"
    patterns = (f"*/{below}", f"*/*/{below}")
    found = [path for pattern in patterns for path in runs_dir.glob(pattern)]
    newest = max(found, key=_last_changed, default=None)
    return None if newest is None else newest.parents[2]


def _last_changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a run that trains has removed an older checkpoint meanwhile
        return 0.0


def _newest_at(place: Location) -> Path | None:
    pattern = re.compile(rf"([^/]+(?:/[^/]+)?)/{CHECKPOINTS_DIR}/[^/]+/{CHECKPOINT_FILE}")
    newest: tuple[int, str] | None = None
    for entry in place.walk() if place.entry() is not None else ():
        match = pattern.fullmatch(entry.path.removeprefix(place.path).lstrip("/"))
        if match is not None:
            newest = max(newest or (0, ""), (entry.changed, match[1]))
    return None if newest is None else fetched(place.child(newest[1]))


def run_of(checkpoint_path: Path) -> RunFolder | None:
    """Return the run that a checkpoint file is in; None if it was moved out of its run."""
    for folder in checkpoint_path.absolute().parents[1:3]:
        if (folder / RECIPE_FILE).is_file():
            return RunFolder(_as_named(folder, checkpoint_path))
    return None


def _as_named(folder: Path, path: Path) -> Path:
    """Return the parent of `path` that is `folder`, as the user wrote it; else `folder`."""
    return next((parent for parent in path.parents if parent.absolute() == folder), folder)


def run_name(recipe: Recipe) -> str:
    """Name the folder of a recipe: runs/<dataset>-<case>-<short hash>."""
    return f"{recipe.data.dataset}-{recipe.data.case}-{recipe_hash(recipe)}"


def default_run_name(runs_dir: Runs, recipe: Recipe) -> str:
    """Name a recipe's folder: an older version's, whatever its hash, if there is one."""
    name = run_name(recipe)
    older = [path for path in older_folders(runs_dir, name) if _is_run_of(path, recipe)]
    return max(older, key=_last_written).name if older else name


def _is_run_of(path: Path, recipe: Recipe) -> bool:
    try:
        return load_recipe(path / RECIPE_FILE).makes_same_run(recipe)
    except RecipeError:
        return False


def _last_written(path: Path) -> float:
    files = (path / METRICS_FILE, path / RECIPE_FILE)
    return next(file.stat().st_mtime for file in files if file.exists())


def is_trained_on(environment: Mapping[str, Any], info: DatasetInfo, case: str | None) -> bool:
    """Return whether a run's record names this dataset, and the parts that the case has now."""
    split = info.split_checksum(case)
    # Older records do not have the second.
    recorded = environment["dataset_checksum"], environment.get("split_checksum", split)
    return recorded == (info.checksum, split)


def check_owner(path: Path, recipe: Recipe, dataset: SkeletonDataset) -> None:
    """Raise RunError if a folder belongs to another recipe or dataset, or is not a run folder.

    Precision `auto`, which is resolved when Ray has started, may still become that of the folder.
    """
    recipe_path = path / RECIPE_FILE
    if not recipe_path.exists():
        check_unused(path)
        return
    try:
        own = load_recipe(str(recipe_path))
    except RecipeError as error:
        raise RunError(
            f"the recipe of the run cannot be used: {error.what}",
            where=display_name(recipe_path),
            now="update sgnray if it is newer, else choose another --name or remove the run",
            problems=error.problems,
        ) from error
    if recipe.train.precision == "auto":
        recipe = recipe.replacing({"train.precision": own.train.precision})
    if not own.makes_same_run(recipe):
        raise RunError(
            "the folder contains a run of another recipe",
            where=display_name(recipe_path),
            now="choose another --name, or repeat the command with that recipe: "
            f"sgn train --recipe {quoted_name(recipe_path)}",
        )
    environment = RunFolder(path).environment()
    if environment is not None and not is_trained_on(environment, dataset.info, recipe.data.case):
        raise RunError(
            "the folder contains a run on another dataset, or on this one before it changed",
            where=f"{display_name(path / ENVIRONMENT_FILE)}: {environment['dataset_dir']}",
            now="choose another --name, or restore the dataset it was started with",
        )
