"""The description of a user's own skeletons: YAML next to a table of clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from sgnray.config.document import checked_version, read_document
from sgnray.config.messages import did_you_mean
from sgnray.config.schema import CaseName, ListOf, Strict, Word, tuple_of_list
from sgnray.errors import InputError, Problem, RecipeError, count_problems

FORMAT_VERSION = 1
ClipNumber = Literal["subject", "camera", "setup", "replication"]

_CASE_NAME = "the case must be named by lower-case letters, digits, - and _; quote a number"
_NOW = "correct the description; 'Your own skeletons' in .github/docs/data.md shows one"


def _list_of_one(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[ListOf[Name], Field(min_length=1)]
Files = Annotated[Names, BeforeValidator(_list_of_one)]
Numbers = Annotated[ListOf[int], Field(min_length=1)]
Bone = Annotated[tuple[Name, Name], BeforeValidator(tuple_of_list)]
Rule = Names | dict[ClipNumber, Numbers]


class SplitRule(Strict):
    """The training and test clips of one case: by name, or by a column's values.

    If only one part is given, all remaining clips are the other part.
    """

    train: Rule | None = None
    test: Rule | None = None


class Description(Strict):
    """The content of a description; error messages use the fields' `description`."""

    dataset: Word = Field(
        description="a name such as my-kinect: lower-case letters, digits, - and _"
    )
    clips: Files = Field(description="a file or a list of files, next to this one")
    joints: Names = Field(description="a list of names")
    classes: Names = Field(min_length=2, description="a list of at least two names")
    bones: ListOf[Bone] = Field(default=(), description="a list of [child, parent] joints")
    coordinates: Literal[2, 3] = Field(default=3, description="2 or 3")
    origin: Name | None = Field(default=None, description="one of the joints")
    splits: dict[CaseName, SplitRule] = Field(
        default={}, description="cases by name, each with train, test or both"
    )


_RULE = (
    "train, test or both: a list of clips' names, or numbers by column (subject, camera, setup, "
    "replication) like {subject: [3, 4]}"
)


def parse_description(text: str, *, source: str) -> Description:
    """Read a description; InputError lists every problem at once, with its line."""
    try:
        document = read_document(text, source=source)
    except RecipeError as error:
        raise InputError(error.what, where=error.where, now=_NOW) from error
    try:
        checked_version(document, kind="description", known=FORMAT_VERSION)
    except RecipeError as error:
        raise InputError(error.what, where=error.where, now=error.now) from error
    content = {str(key): value for key, value in document.content.items()}
    content.pop("format_version", None)
    try:
        description = Description.model_validate(content)
    except ValidationError as error:
        found = dict.fromkeys(_explain(error))
    else:
        found = dict.fromkeys(_contradictions(description))
    located = (Problem(document.where(key), what) for key, what in found)
    problems = [*document.problems, *located]
    if problems:
        raise InputError(
            f"{source} has {count_problems(problems)}", where=source, now=_NOW, problems=problems
        )
    return description


def _explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    wrong_lists = set()  # of names; the first wrong entry of each is enough
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        place, *rest = detail["loc"]
        key = str(place)
        is_not_text = detail["type"] == "string_type"
        field = Description.model_fields.get(key)
        if field is None:
            yield key, f"unknown key{did_you_mean(key, Description.model_fields)}"
        elif detail["type"] == "missing":
            yield key, f"is missing; it must be {field.description}"
        elif key == "splits" and rest:
            what = _CASE_NAME if rest[1:] == ["[key]"] else f"must be {_RULE}"
            yield f"splits.{rest[0]}", what
        elif key in ("bones", "origin") and is_not_text:
            yield key, "names a joint that is not text: put it in quotes"
        elif is_not_text and rest and isinstance(rest[0], int):
            if key not in wrong_lists:
                yield key, f"entry {rest[0] + 1} of {key} is not text: put it in quotes"
            wrong_lists.add(key)
        elif key not in wrong_lists:
            yield key, f"must be {field.description}"


def _contradictions(description: Description) -> Iterator[tuple[str, str]]:
    for key in ("clips", "joints", "classes"):
        if twice := _first_twice(getattr(description, key)):
            yield key, f"has {twice!r} twice"
    joints = description.joints
    for bone in description.bones:
        for joint in bone:
            if joint not in joints:
                yield "bones", f"{joint!r} is not a joint{did_you_mean(joint, joints)}"
        if bone[0] == bone[1]:
            yield "bones", f"{bone[0]!r} cannot be its own parent"
    if description.origin is not None and description.origin not in joints:
        meant = did_you_mean(description.origin, joints)
        yield "origin", f"{description.origin!r} is not a joint{meant}"
    for case, rule in description.splits.items():
        yield from ((f"splits.{case}", what) for what in _wrong_rule(rule))


def _wrong_rule(rule: SplitRule) -> Iterator[str]:
    given = [part for part in (rule.train, rule.test) if part is not None]
    if not given:
        yield "needs train, test or both"
    for part in given:
        if isinstance(part, Mapping):
            if not part:
                yield "names no column; write {subject: [3, 4]}, for example"
        elif twice := _first_twice(part):
            yield f"names the clip {twice!r} twice"


def _first_twice(names: tuple[str, ...]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
