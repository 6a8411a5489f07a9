"""What the command-line parser refuses, told like every other error."""

from __future__ import annotations

import re
from typing import Any

from sgnray.errors import UsageError


def as_usage_error(failure: Exception) -> UsageError:
    """Translate an error of the parser: which option or command, and the one that was meant."""
    # The parser's own classes are private to typer; what they carry is not.
    context: Any = getattr(failure, "ctx", None)
    path = context.command_path if context is not None else "sgn"
    told = UsageError(
        _what(failure, context), where=path, now=f"'{path} --help' shows what it takes"
    )
    told.__cause__ = failure
    return told


def _what(failure: Any, context: Any) -> str:
    from sgnray.config.messages import did_you_mean

    message = str(failure.format_message() if hasattr(failure, "format_message") else failure)
    command = re.match(r"No such command '(.*?)'", message)
    if command is not None:
        known = list(context.command.commands)
        meant = did_you_mean(command[1], known) or f"; there are {', '.join(known)}"
        return f"there is no command '{command[1]}'{meant}"
    option = getattr(failure, "option_name", None)
    if message.startswith("No such option"):
        known = [name for param in context.command.params for name in param.opts]
        return f"there is no option {option}{did_you_mean(str(option), known)}"
    missing = re.match(r"Missing (\w+) '(.*?)'", message)
    if missing is not None:
        return f"the {missing[1]} {missing[2]} is missing"
    value = re.match(r"Invalid value for '(.*?)': (?:Value error, )?(.*)", message)
    if value is not None:
        return f"{value[1]}: {value[2].replace('Input should', 'the value must').rstrip('.')}"
    return message[:1].lower() + message[1:].rstrip(".")
