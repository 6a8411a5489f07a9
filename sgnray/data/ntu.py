"""What NTU RGB+D publishes beside its recordings: the names of its actions, and of broken clips."""

from __future__ import annotations

import csv
from importlib.resources import files as package_files

_NTU60_CLASSES = 60
_NTU60_SETUPS = 17


def read_class_names(dataset: str) -> tuple[str, ...]:
    """Give the action names of ntu60 or ntu120, in the order of their labels."""
    text = package_files("sgnray.data").joinpath("ntu_actions.csv").read_text(encoding="utf-8")
    names = [row["name"] for row in csv.DictReader(text.splitlines())]
    return tuple(names[:_NTU60_CLASSES] if dataset == "ntu60" else names)


def read_missing_names() -> frozenset[str]:
    """Give NTU's published clips with missing skeletons: 535, of which 302 belong to NTU60."""
    text = package_files("sgnray.data").joinpath("ntu_missing.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def tell_ntu(*, last_setup: int, last_action: int) -> str:
    """Tell ntu60 from ntu120 by the highest setup and action that occur."""
    is_ntu60 = last_setup <= _NTU60_SETUPS and last_action <= _NTU60_CLASSES
    return "ntu60" if is_ntu60 else "ntu120"
