"""YAML text to plain data, with the line of every key.

The resolvers are those of YAML 1.2's core schema: `1e-3` is a number (YAML 1.1 calls it a string),
while `yes`, `1:30`, `010` and dates are strings, which a typed recipe then refuses.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sgnray.config.messages import did_you_mean
from sgnray.errors import Problem, RecipeError


@dataclass(frozen=True)
class Document:
    """One parsed file: its sections, the line of each dotted key, and keys given twice."""

    source: str
    content: dict[str, Any]
    lines: dict[str, int]
    problems: tuple[Problem, ...] = ()

    def where(self, key: str) -> str:
        """Name a key with its line, for an error message."""
        line = self.lines.get(key)
        return f"{key} (line {line})" if line else key


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader that reads scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_RESOLVERS = {
    "null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _kind, (_pattern, _first) in _RESOLVERS.items():
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _construct_text(loader: _CoreLoader, node: yaml.ScalarNode) -> str:
    # JSON, which is YAML too, may write an emoji as the escapes of two surrogates.
    text = str(loader.construct_scalar(node))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


_CoreLoader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def read_document(text: str, *, source: str) -> Document:
    """Parse one YAML mapping of sections; RecipeError names the line that is wrong."""
    content, node = _load(text, source=source)
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise RecipeError(
            f"{source} is {'empty' if content is None else 'not a mapping of sections'}",
            where=source,
            now="write sections with keys, for example 'optim:' and under it '  batch_size: 64'",
        )
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    _visit(node, "", lines, problems)
    return Document(source, content, lines, tuple(problems))


def list_shipped(package: str) -> tuple[str, ...]:
    """List the names of the YAML files that a package holds."""
    shipped = resources.files(package).iterdir()
    return tuple(sorted(item.name[:-5] for item in shipped if item.name.endswith(".yaml")))


def is_path(name_or_path: str) -> bool:
    """Return whether a path of a YAML file was given, and not the name of a shipped one."""
    return name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path


def read_named(
    name_or_path: str, *, kind: str, package: str, folder: Path = Path()
) -> tuple[str, str]:
    """Read the text of a shipped file, or of one below `folder`, and its name or path.

    RecipeError if it fails; `kind` names the content in its messages: recipe, search space.
    """
    shipped = list_shipped(package)
    if is_path(name_or_path):
        path = folder / os.path.expanduser(name_or_path)  # leaves an unknown ~user as it is
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except FileNotFoundError:
            what = f"{kind} file not found"
        except UnicodeDecodeError:
            what = f"the {kind} file is not UTF-8 text"
        except OSError as error:
            what = f"the {kind} file cannot be read: {error.strerror}"
        now = (
            f"give the path of a .yaml file, or a shipped {kind.split()[-1]}: {', '.join(shipped)}"
        )
        raise RecipeError(what, where=str(path), now=now)
    if name_or_path not in shipped:
        raise RecipeError(
            f"{kind} '{name_or_path}' not found{did_you_mean(name_or_path, shipped)}",
            where=f"shipped {kind}s: {', '.join(shipped)}",
            now="choose one of these, or give the path of a .yaml file",
        )
    file = resources.files(package).joinpath(f"{name_or_path}.yaml")
    return file.read_text(encoding="utf-8"), name_or_path


def checked_version(document: Document, *, kind: str, known: int) -> Document:
    """Return the document; RecipeError if its format version is not the `known` one."""
    version = document.content.get("format_version", known)
    if version == known and not isinstance(version, bool):
        return document
    is_newer = isinstance(version, int) and version > known
    raise RecipeError(
        f"the {kind} has format version {version!r}, and this sgnray reads {known}",
        where=f"{document.source}:{document.lines['format_version']}",
        now="update sgnray" if is_newer else f"write 'format_version: {known}'",
    )


def read_value(text: str) -> object:
    """Parse the value of one override; ValueError if it is not YAML."""
    loader = _CoreLoader(text)
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_reason(error)) from error
    finally:
        loader.dispose()


def _load(text: str, *, source: str) -> tuple[Any, yaml.Node | None]:
    try:
        loader = _CoreLoader(text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RecipeError(
            f"{source} is not valid YAML: {_reason(error)}",
            where=f"{source}{line}",
            now="correct this line; keys are written 'key: value', indented by two spaces",
        ) from error
    return content, node


def _visit(
    node: yaml.MappingNode, prefix: str, lines: dict[str, int], problems: list[Problem]
) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            problems.append(
                Problem(f"{name} (line {line})", f"given twice, first on line {lines[name]}")
            )
        lines[name] = line
        if isinstance(value, yaml.MappingNode) and not prefix:
            _visit(value, f"{name}.", lines, problems)


def _reason(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    text = str(problem or error).strip() or "nested too deeply"
    return text.splitlines()[0]
