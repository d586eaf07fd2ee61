"""The command line: help that suffices, errors that name the thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OSMF = str(Path(sys.executable).with_name("osmf"))


def _osmf(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OSMF, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_help_names_every_command() -> None:
    done = _osmf("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("demo", "doctor", "simulate", "tables", "settings"))


def test_settings_show_variables_and_values_but_no_secret() -> None:
    done = _osmf("settings", OSMF_MIN_GROUP_USERS="77", OSMF_USER_KEY="mysecret")
    assert "OSMF_MIN_GROUP_USERS" in done.stdout
    assert "77" in done.stdout
    assert "mysecret" not in done.stdout


def test_an_impossible_setting_is_named() -> None:
    done = _osmf("settings", OSMF_MIN_GROUP_USERS="0")
    assert done.returncode == 2
    assert done.stdout == "error: OSMF_MIN_GROUP_USERS=0: Input should be greater than or equal to 1\n"


def test_simulating_into_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = _osmf("simulate", "--out", str(tmp_path), OSMF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert str(tmp_path) in done.stdout
    assert not (tmp_path / "drop").exists()
