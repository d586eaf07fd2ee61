"""The command line: help that suffices, errors that name the thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    assert all(name in done.stdout for name in ("demo", "doctor", "generate", "simulate", "tables", "settings"))


def test_settings_show_variables_and_values_but_no_secret() -> None:
    done = _osmf("settings", OSMF_MIN_GROUP_USERS="77", OSMF_USER_KEY="mysecret")
    assert "OSMF_MIN_GROUP_USERS" in done.stdout
    assert "77" in done.stdout
    assert "mysecret" not in done.stdout


def test_an_impossible_setting_is_named() -> None:
    done = _osmf("settings", OSMF_MIN_GROUP_USERS="0")
    assert done.returncode == 2
    assert done.stdout == "error: OSMF_MIN_GROUP_USERS=0: Input should be greater than or equal to 1\n"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OSMF_SPARK_CONF", '{"spark.sql.session.timeZone": "CET", "fs.s3a.secret.key": "hunter2"}', "must stay UTC"),
        ("OSMF_SPARK_CONF", '{"fs.s3a.secret.key": ["hunter2"]}', "should be a valid string"),
        ("OSMF_LAUNCH_COMMAND", "sshpass -p hunter2 ssh trainer", "lacks {command}: put it where"),
        ("OSMF_CANCEL_COMMAND", "sshpass -p hunter2 ssh trainer 'scancel", "close every quote"),
    ],
)
def test_a_wrong_setting_that_may_hold_a_secret_is_not_shown(variable: str, value: str, told: str) -> None:
    done = _osmf("settings", **{variable: value})
    assert done.returncode == 2
    assert done.stdout.startswith(f"error: {variable}")
    assert "=(not shown): " in done.stdout
    assert told in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_markup_in_a_wrong_setting_is_text() -> None:
    done = _osmf("settings", OSMF_MIN_GROUP_USERS="[/][red]many")
    assert done.returncode == 2
    assert done.stdout.startswith("error: OSMF_MIN_GROUP_USERS=[/][red]many: Input should be a valid integer")


def test_rows_of_no_table_are_refused(tmp_path: Path) -> None:
    home = {"OSMF_HOME": str(tmp_path / "home")}
    unknown, unnamed = _osmf("tables", "clicks", **home), _osmf("tables", "--day", "2026-03-02", **home)
    assert (unknown.returncode, unnamed.returncode) == (2, 2)
    assert unknown.stdout.startswith("error: no table 'clicks'; there are: bronze_impressions, ")
    assert "name it, as `osmf tables group_ctr`" in unnamed.stdout


def test_a_part_of_the_demo_is_not_the_full_one(tmp_path: Path) -> None:
    done = _osmf("demo", "--full", "--only", "data", OSMF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert "give one of the two" in done.stdout
    assert not (tmp_path / "home").exists()


def test_simulating_into_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = _osmf("simulate", "--out", str(tmp_path), OSMF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert str(tmp_path) in done.stdout
    assert not (tmp_path / "drop").exists()


def test_a_market_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    wrong = {
        ("--scope", "hat"): "no scope is called 'hat': market realistic-1 has shoe, bag",
        ("--impressions", "-1"): "impressions_per_day -1",
        ("--users", "0"): "num_users is 0",
        ("--policy", "fixed", "--propensities", "0.5,0.6"): "add up to 1.1",
        ("--policy", "fixed", "--propensities", "a,b"): "write numbers with commas between",
        ("--first-date", "tomorrow"): "write it as YYYY-MM-DD",
        ("--missing-day", "9"): "there is no day 9",
        ("--own-products", str(tmp_path / "own")): "products.csv",
    }
    for arguments, message in wrong.items():
        done = _osmf("simulate", "--out", str(tmp_path / "out"), "--products", "2", *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stdout, done.stdout
    assert not (tmp_path / "out").exists()


def test_a_contact_sheet_shows_the_scopes_asked_for(tmp_path: Path) -> None:
    sheets = {}
    for scopes in (("mug",), ("mug", "bag")):
        path = tmp_path / "sheets" / f"{len(scopes)}.png"
        options = [part for scope in scopes for part in ("--scope", scope)]
        done = _osmf("simulate", "--contact-sheet", str(path), "--products", "1", *options)
        assert done.returncode == 0, done.stdout
        with Image.open(path) as sheet:
            sheets[scopes] = np.asarray(sheet.convert("RGB"))
    one, two = sheets.values()
    middle = one.shape[1] // 2
    assert (one[:, middle:] == 255).all()
    assert (two[:, middle:] < 255).any()


def test_promoting_what_cannot_be_promoted_says_what_to_do(tmp_path: Path) -> None:
    wrong = {
        ("promote",): "there is no registry at",
        ("rollback",): "there is no registry at",
        ("promote", "--decision", "because"): "give both, --decision TEXT --by NAME",
        ("promote", "--by", "ada"): "give both, --decision TEXT --by NAME",
    }
    for arguments, message in wrong.items():
        done = _osmf(*arguments, OSMF_HOME=str(tmp_path / "home"))
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout.startswith("error: ")
        assert message in done.stdout, done.stdout
    assert not list((tmp_path / "home").rglob("*.db"))
