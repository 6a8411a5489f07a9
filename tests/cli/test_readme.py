"""README, guides and recipe headers: each `sgn` line parses, each link has a target."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from sgnray.cli import main
from sgnray.config import load_recipe
from sgnray.tune.sampler import make_sampler
from sgnray.tune.space_file import load_space
from sgnray.version import __version__

ROOT = Path(main.__file__).parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / ".github" / "docs").glob("*.md"))
PAGES = [README, *GUIDES, *sorted((ROOT / ".github").glob("*.md"))]
RECIPES = sorted((ROOT / "conf").glob("**/*.yaml"))


def commands_in(text):
    """Each `sgn ...` of a code span or block, without its comment; a bare verb is only a name."""
    spans = re.findall(r"`(sgn [^`\s]+ [^`\n]+)`", text)
    lines = re.findall(r"^[ #]*((?:pip|sgn) .*)$", text, flags=re.MULTILINE)
    for span in (*spans, *lines):
        for part in span.split("#")[0].split("&&"):
            words = shlex.split(part)
            if len(words) > 1 and words[0] == "sgn":
                yield tuple(words[1:])


def commands_of(paths):
    return sorted({words for path in paths for words in commands_in(path.read_text())})


def parse(words):
    """Parse a command as `sgn` would, and stop there."""
    group = typer.main.get_command(main.app)
    with group.make_context("sgn", list(words), resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        with command.make_context(name, rest, parent=context):
            pass


@pytest.mark.parametrize("words", commands_of(PAGES), ids=" ".join)
def test_a_command_of_the_guides_parses(words):
    parse(words)


@pytest.mark.parametrize("words", commands_of(RECIPES), ids=" ".join)
def test_a_command_of_a_recipe_parses(words):
    parse(words)


EXAMPLES = [
    tuple(shlex.split(line.split(" < ")[0])[1:])
    for table in (main._COMMANDS, main._DATA_COMMANDS)
    for _, *examples in table.values()
    for line in examples
]


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_an_example_of_a_help_page_parses(words):
    parse(words)


@pytest.mark.parametrize("words", [words for words in EXAMPLES if words[0] == "tune"], ids=" ".join)
def test_an_example_of_a_search_has_trials(words):
    context = typer.main.get_command(main.app).commands["tune"].make_context("tune", [*words[1:]])
    given = context.params
    space = load_space(given["space"], load_recipe("ntu60-cv"), lambda recipe: recipe)
    search = given["search"] or space.search
    assert make_sampler(space, search, given["trials"], seed=0).num_trials > 1


def test_the_commands_are_found():
    assert {words[0] for words in commands_of([README, *GUIDES])} == {
        "bench",
        "data",
        "demo",
        "eval",
        "export",
        "predict",
        "prepare",
        "synth",
        "train",
        "tune",
        "view",
    }
    assert ("train", "--recipe", "ntu120-cset") in commands_of(RECIPES)


def test_a_wrong_command_does_not_parse():
    with pytest.raises(Exception, match=r"--worker"):
        parse(["train", "--worker", "8"])


def test_the_pages_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (README, *GUIDES)}
    assert lengths.pop("README.md") <= 220
    assert lengths
    assert [name for name, length in lengths.items() if length >= 200] == []


def anchors_in(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_link_has_its_target(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_in(linked.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_path_of_the_code_exists(page):
    named = re.findall(r"`((?:sgnray|cli|conf|tests|\.github)/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_animation_is_small():
    assert (ROOT / ".github" / "docs" / "clip.gif").stat().st_size < 400_000


def test_github_gets_valid_yaml():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    loaded = {form.stem: yaml.safe_load(form.read_text()) for form in forms}
    asked = {part["attributes"]["label"] for part in loaded["bug"]["body"]}
    assert {"environment.json", "log.txt"} <= asked
    for name in ("ci", "nightly"):
        workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
        for job, described in workflow["jobs"].items():
            commands = [step["run"] for step in described["steps"] if "run" in step]
            assert "bash .ci/run" in commands[-1], job
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == ["ruff", "ruff", "mypy"]
    citation = yaml.safe_load((ROOT / ".github/CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", __version__)
