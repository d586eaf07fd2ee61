"""Command templates: how `srun --nodes 2 {command}` or `ssh trainer 'cd /work && {command}'` becomes arguments.

A template is split into arguments first and filled afterwards, and no shell of this machine reads it. A placeholder
outside quotes is an argument: its value goes in as it is, {command} as one argument for each word. A placeholder inside
quotes is part of a line that a shell will read, on the other machine: its value is quoted for that shell. What is
started, and when, belongs in `launchers.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

COMMAND = "command"
# Placeholders inside quotes, between two characters for private use; splitting takes the quotes away.
_IN, _OUT = "\ue000", "\ue001"
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
_BARE = re.compile(r"(?<!\$)\{(\w+)\}")
_PLACEHOLDER = re.compile(rf"(?<!\$)\{{(?P<bare>\w+)\}}|{_IN}(?P<quoted>\w+){_OUT}")
_JOINS_ARGUMENTS = ("ssh", "rsh", "pdsh")

Values = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class CommandTemplate:
    """A template that was read.

    Attributes:
        arguments: the split template; its placeholders still stand in it.
    """

    arguments: tuple[str, ...]

    def fill(self, values: Values) -> list[str]:
        """Returns the command with the values of the placeholders.

        Args:
            values: by placeholder; a sequence is a command, whose words become arguments of their own, or, within a
                longer argument, one line.
        """
        filled: list[str] = []
        for argument in self.arguments:
            alone = _BARE.fullmatch(argument)
            if alone and not isinstance(values[alone[1]], str):
                filled.extend(values[alone[1]])
            else:
                filled.append(_PLACEHOLDER.sub(lambda found: _text(found, values), argument))
        return filled


def parse_template(text: str, allowed: Sequence[str], needed: Sequence[str] = ()) -> CommandTemplate:
    """Returns the template that `text` holds.

    Args:
        text: the template.
        allowed: names of the placeholders that there are.
        needed: those that it must have.

    Raises:
        ValueError: when it cannot be split, a placeholder is unknown, missing, or where its value would be split.
    """
    try:
        arguments = tuple(shlex.split(_QUOTED.sub(lambda part: _BARE.sub(rf"{_IN}\1{_OUT}", part[0]), text)))
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments ({error}): close every quote") from None
    if not arguments:
        raise ValueError("names no program: write one, such as `srun {command}`, or leave the variable unset")
    found = [match["bare"] or match["quoted"] for argument in arguments for match in _PLACEHOLDER.finditer(argument)]
    known = ", ".join(f"{{{name}}}" for name in allowed)
    for name in found:
        if name not in allowed:
            raise ValueError(f"{{{name}}} is no placeholder here: there are {known}")
    for name in needed:
        if name not in found:
            raise ValueError(f"lacks {{{name}}}: put it where the training command goes, as in `srun {{{name}}}`")
    _check_quotes(arguments)
    return CommandTemplate(arguments)


def _check_quotes(arguments: tuple[str, ...]) -> None:
    """Refuses what a second shell would take apart."""
    for argument in arguments:
        if any(_IN in part[0] for part in _QUOTED.finditer(argument)):
            raise ValueError(
                "has a placeholder within quotes that are within quotes: leave out the inner ones, since values are "
                "quoted already, or put the line into a script"
            )
    joiner = next((word for word in arguments if PurePath(word).name in _JOINS_ARGUMENTS), None)
    bare = next((found[0] for argument in arguments for found in _BARE.finditer(argument)), None)
    if joiner and bare:
        raise ValueError(
            f"{PurePath(joiner).name} joins its arguments into a line for a shell: put what it runs, {bare} included, "
            "into quotes, as in `ssh trainer '{command}'`"
        )


def _text(found: re.Match[str], values: Values) -> str:
    """The value of one placeholder within an argument."""
    value = values[found["bare"] or found["quoted"]]
    if not isinstance(value, str):
        return shlex.join(value)
    return shlex.quote(value) if found["quoted"] else value
