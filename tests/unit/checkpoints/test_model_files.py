"""The table of exported files: complete, and its loadable files are in the guides."""

from pathlib import Path
from typing import get_args

import pytest

from sgnray.checkpoints.model_files import MODEL_FORMATS, FormatName, describe_loadable

DOCS = Path(__file__).parents[3] / ".github" / "docs"


def test_each_name_has_a_row():
    assert get_args(FormatName) == tuple(MODEL_FORMATS)
    suffixes = [known.suffix for known in MODEL_FORMATS.values()]
    assert len(set(suffixes)) == len(suffixes)


def test_help_names_the_files_that_a_command_can_load():
    assert {".onnx", ".safetensors"} <= set(describe_loadable().replace(",", "").split())
    assert ".pt2" not in describe_loadable()
    assert ".onnx" not in describe_loadable(with_weights=True)


@pytest.mark.parametrize("page", ["predicting.md", "using-a-model.md"])
def test_each_loadable_suffix_is_in_the_guides(page):
    text = (DOCS / page).read_text()
    loadable = [known.suffix for known in MODEL_FORMATS.values() if known.read is not None]
    assert [suffix for suffix in loadable if f"`{suffix}`" not in text] == []
