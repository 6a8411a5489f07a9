"""Every `sgn` line of the README and of the recipes' headers is one that `sgn` understands."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from sgnray.cli import main

ROOT = Path(main.__file__).parents[1]


def commands_in(text):
    """Each `sgn ...` of a code span or block, without its comment; a bare verb is only a name."""
    spans = re.findall(r"`(sgn [^`\s]+ [^`\n]+)`", text)
    lines = re.findall(r"^[ #]*((?:pip|sgn) .*)$", text, flags=re.MULTILINE)
    for span in (*spans, *lines):
        for part in span.split("#")[0].split("&&"):
            words = shlex.split(part)
            if len(words) > 1 and words[0] == "sgn":
                yield tuple(words[1:])


README = sorted(set(commands_in((ROOT / "README.md").read_text())))
RECIPES = sorted(
    {c for path in (ROOT / "conf").glob("**/*.yaml") for c in commands_in(path.read_text())}
)


def parse(words):
    """Parse a command as `sgn` would, and stop there."""
    group = typer.main.get_command(main.app)
    with group.make_context("sgn", list(words), resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        with command.make_context(name, rest, parent=context):
            pass


@pytest.mark.parametrize("words", README, ids=" ".join)
def test_a_command_of_the_readme_parses(words):
    parse(words)


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
def test_a_command_of_a_recipe_parses(words):
    parse(words)


def test_the_commands_are_found():
    assert {words[0] for words in README} == {
        "bench",
        "data",
        "demo",
        "eval",
        "export",
        "predict",
        "prepare",
        "train",
        "tune",
        "view",
    }
    assert ("train", "--recipe", "ntu120-cset", "--workers", "8") in RECIPES


def test_a_wrong_command_does_not_parse():
    with pytest.raises(Exception, match=r"--worker"):
        parse(["train", "--worker", "8"])
