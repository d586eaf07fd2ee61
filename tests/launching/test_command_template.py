"""Templates of commands: what becomes of a value, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from osmf_pipelines.resources.command_template import parse_template
from tests.launching.conftest import HOSTILE

NAMES = ("command", "output", "job")
SHOW = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
COMMAND = [*SHOW, "--output", HOSTILE]
VALUES = {"command": COMMAND, "output": HOSTILE, "job": "osmf-1"}


def filled(template: str) -> list[str]:
    return parse_template(template, NAMES).fill(VALUES)


def shown(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    arguments: list[str] = json.loads(done.stdout)
    return arguments


def test_outside_quotes_a_value_is_an_argument() -> None:
    assert filled("srun --job-name {job} --chdir={output} {command}") == [
        "srun",
        "--job-name",
        "osmf-1",
        f"--chdir={HOSTILE}",
        *COMMAND,
    ]


@pytest.mark.parametrize("template", ["sh -c '{command}'", 'sh -c "true && {command}"', "sh -c true&&{command}"])
def test_a_line_for_a_shell_gives_the_same_arguments(template: str) -> None:
    assert shown(filled(template)) == ["--output", HOSTILE]


def test_a_quoted_value_stays_one_word_of_the_shell() -> None:
    show = " ".join(f"'\\''{word}'\\''" for word in SHOW)
    assert shown(filled(f"sh -c '{show} {{output}} $((1 + 1))'")) == [HOSTILE, "2"]


def test_values_are_not_read_as_templates() -> None:
    template = parse_template("echo {output} '{output}'", NAMES)
    assert template.fill({"output": "{job}{command}"}) == ["echo", "{job}{command}", "'{job}{command}'"]


def test_what_is_no_placeholder_stays() -> None:
    assert filled("kubectl run --overrides '{\"spec\": {}}' '${HOME}' {job}") == [
        "kubectl",
        "run",
        "--overrides",
        '{"spec": {}}',
        "${HOME}",
        "osmf-1",
    ]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("srun {command", r"lacks {command}: put it"),
        ("srun --nodes 2", r"lacks {command}: put it"),
        ("srun {command} {data}", r"{data} is no placeholder here: there are {command}, {output}, {job}"),
        ("srun '{command}", r"cannot be split .*: close every quote"),
        (" ", "names no program"),
        ("ssh trainer {command}", r"ssh joins its arguments .*'{command}'"),
        ("timeout 9 /usr/bin/ssh trainer cd {output} '&& {command}'", "ssh joins its arguments"),
        ("""sh -c "cd '{output}' && {command}" """, "leave out the inner ones"),
        ("""ssh trainer 'bash -lc "{command}"'""", "leave out the inner ones"),
    ],
)
def test_what_cannot_be_is_refused(template: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_template(template, NAMES, needed=("command",))
