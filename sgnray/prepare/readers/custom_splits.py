"""The splits of a description, resolved to the clips that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from sgnray.config.custom import Rule, SplitRule
from sgnray.errors import Problem
from sgnray.prepare.clip import ClipFacts
from sgnray.prepare.plan import Splits


def name_splits(
    rules: Mapping[str, SplitRule], clips: Sequence[ClipFacts], names: Set[str]
) -> tuple[Splits, list[Problem]]:
    """Name the training and test clips of each case, and say what is wrong with a case.

    `names` are all clips that the tables have; those that are not among `clips` are refused ones,
    and in no part. A clip whose number is unknown is in no part of a case that asks for it.
    """
    splits: Splits = {}
    problems: list[Problem] = []
    for case, rule in rules.items():
        found = list(_unknown_names(rule, names))
        parts = {"train": _part(rule.train, rule.test, clips)}
        parts["test"] = _part(rule.test, rule.train, clips)
        found += [f"leaves no clips for {part}" for part, chosen in parts.items() if not chosen]
        both = set(parts["train"]) & set(parts["test"])
        if both:
            found.append(f"has {len(both)} clips in both parts, {min(both)!r} among them")
        problems += [Problem(f"splits.{case}", what) for what in found]
        splits[case] = parts
    return splits, problems


def _part(rule: Rule | None, other: Rule | None, clips: Sequence[ClipFacts]) -> list[str]:
    """Name the clips of a part: those of its rule, else those that are not of the other's."""
    given = rule if rule is not None else other
    assert given is not None
    listed = frozenset() if isinstance(given, Mapping) else frozenset(given)
    return sorted(clip.name for clip in clips if _is_in(clip, given, listed) is (rule is not None))


def _is_in(clip: ClipFacts, rule: Rule, listed: Set[str]) -> bool | None:
    """Tell whether a rule takes a clip; None where a number that it asks for is unknown."""
    if not isinstance(rule, Mapping):
        return clip.name in listed
    numbers = [(getattr(clip, column), wanted) for column, wanted in rule.items()]
    if any(number is None for number, _ in numbers):
        return None
    return all(number in wanted for number, wanted in numbers)


def _unknown_names(rule: SplitRule, names: Set[str]) -> Iterator[str]:
    for part in (rule.train, rule.test):
        unknown = [] if not isinstance(part, tuple) else [n for n in part if n not in names]
        if unknown:
            more = f", and {len(unknown) - 1} more are unknown" if len(unknown) > 1 else ""
            yield f"there is no clip {unknown[0]!r}{more}"
