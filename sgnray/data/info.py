"""dataset.json describes a prepared dataset: written by preparation, checked by every reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from sgnray.config.schema import ListOf, Strict, Word
from sgnray.data.skeleton import NAMED, SkeletonField
from sgnray.errors import InputError, Problem

FORMAT_VERSION = 2
INFO_FILE = "dataset.json"

NamedSplits = dict[str, dict[str, list[str]]]

REBUILD = "prepare it again: sgn prepare --raw PATH --overwrite"
Count = Annotated[int, Field(ge=0, description="a count")]


def _each_once(splits: NamedSplits) -> NamedSplits:
    for case, parts in splits.items():
        names = [*parts["train"], *parts["test"]]
        if len(set(names)) < len(names):
            raise ValueError(f"names a clip of the case {case} twice")
    return splits


_Part = Annotated[str, Field(pattern="^(train|test)$")]
_Parts = Annotated[dict[_Part, list[str]], Field(min_length=2)]


class DatasetInfo(Strict):
    """What dataset.json says; error messages use the descriptions.

    `splits` names the training and test clips of each case that the source itself fixes; None
    if the published protocols split by subject, camera or setup.
    """

    format_version: int = Field(ge=1, description="a version")
    dataset: Word = Field(description="a name such as ntu60")
    skeleton: SkeletonField = Field(description="a skeleton")
    class_names: ListOf[str] = Field(min_length=1, description="a list of names")
    num_clips: Count
    num_poses: Count
    num_skipped: Count
    source: dict[str, Any] = Field(description="a record of the source")
    checksum: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256: and 64 hex digits")
    splits: Annotated[dict[Word, _Parts], AfterValidator(_each_once)] | None = Field(
        default=None, description="the train and test names of each case"
    )

    @property
    def identity(self) -> str:
        """What all copies share: the checksum, or a digest of it and of the source's own splits."""
        if self.splits is None:
            return self.checksum
        return _digest([self.checksum, self.class_names, self.splits])

    def split_checksum(self, case: str | None) -> str | None:
        """Return a digest of the clips and a case's parts; None if the source has no such case."""
        parts = (self.splits or {}).get(case or "")
        return None if parts is None else _digest([self.checksum, parts])


def _digest(content: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def read_info(folder: Path) -> DatasetInfo:
    """Read and check dataset.json; InputError names the key that is missing or wrong."""
    path = folder / INFO_FILE
    if not path.is_file():
        raise InputError(
            "not a prepared dataset" if folder.exists() else "dataset not found",
            where=str(path),
            now="prepare one: sgn prepare --raw PATH",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise corrupt(path, f"it cannot be read: {error.strerror or error}") from error
    return parse_info(content, where=str(path))


def parse_info(content: bytes, *, where: str) -> DatasetInfo:
    """Check the content of dataset.json, as `read_info` does; `where` names it."""
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise corrupt(where, "it is not valid JSON") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise corrupt(where, "no readable format_version")
    if version > FORMAT_VERSION:
        raise InputError(
            f"the dataset has format version {version}, this sgnray reads up to {FORMAT_VERSION}",
            where=where,
            now=f"update sgnray, or {REBUILD}",
        )
    keys = {"layout", *DatasetInfo.model_fields} - ({"skeleton"} if version == 1 else set())
    if set(data) != keys:
        raise corrupt(where, f"wrong keys {', '.join(sorted(set(data) ^ keys))}")
    layout = data.pop("layout")
    if not isinstance(layout, str) or (version == 1 and layout not in NAMED):
        raise corrupt(where, f"layout is {layout!r:.60}, which is unknown")
    if version == 1:  # it has only the name of one of two layouts
        data["skeleton"] = NAMED[layout]
    elif isinstance(data["skeleton"], dict):
        data["skeleton"]["name"] = layout
    try:
        return DatasetInfo.model_validate(data)
    except ValidationError as error:
        wrong = _explain(error, data)
        if len(wrong) == 1:
            raise corrupt(where, "".join(*wrong.items())) from error
        problems = [Problem(key, what.lstrip(": ")) for key, what in wrong.items()]
        raise corrupt(where, f"{len(wrong)} values are wrong", problems) from error


def _explain(error: ValidationError, data: dict[str, Any]) -> dict[str, str]:
    """Return every key with a wrong value, and the rest of a sentence that begins with it."""
    wrong: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0])
        if detail["type"] == "value_error":
            what = f": {detail['ctx']['error']}"
        else:
            what = f" is {_show(data[key])}, not {DatasetInfo.model_fields[key].description}"
        wrong.setdefault(key, what)
    return wrong


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write dataset.json."""
    content = info.model_dump(mode="json")
    skeleton = content.pop("skeleton")
    head = {key: content.pop(key) for key in ("format_version", "dataset")}
    content = {**head, "layout": skeleton.pop("name"), "skeleton": skeleton, **content}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / INFO_FILE).write_text(text + "\n", encoding="utf-8")


def corrupt(where: Path | str, detail: str, problems: Sequence[Problem] = ()) -> InputError:
    """Build the error for a dataset that is corrupt or not ours."""
    return InputError(
        f"the dataset is corrupt or not ours: {detail}",
        where=str(where),
        now=REBUILD,
        problems=problems,
    )


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
