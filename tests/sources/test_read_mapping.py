"""What is said about a wrong mapping.toml, and that its reference is itself a right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from osmf_pipelines.sources import mapping as reference
from osmf_pipelines.sources.read_mapping import read_mapping
from tests.sources.conftest import DIMENSIONS, EVENT_COLUMNS, PAIR_COLUMNS, edit

TABLES = """
[impressions]
table = "ads.impressions"
day_column = "dt"
[clicks]
format = "jdbc"
options = {url = "jdbc:x", password = "hunter2"}
day_column = "dt"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.toml").write_text(TABLES + EVENT_COLUMNS + DIMENSIONS)
    return tmp_path


def test_the_reference_is_a_valid_mapping(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(str(reference.__doc__).split("```toml")[1].split("```")[0])
    mapping = read_mapping(tmp_path, "table")
    assert mapping.settle_hours == 6
    assert mapping.clicks.day_format == "%Y%m%d"
    assert mapping.preference_pairs is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('user_id = "who"\n', "", r"\[impressions.columns\] lacks user_id"),
        ('scope="category"', 'scop="category"', r"\[products.columns\] lacks scope; maps scop, which is not one of"),
        ('position = "pos"', 'position = ""', "position: String should have at least 1 character"),
        ("[clicks]", "[click]", r"click is not known here \(did you mean 'clicks'\?\)"),
        ('day_column = "dt"\n[clicks]', 'day_colum = "dt"\n[clicks]', r"day_colum is not known here \(did you mean"),
        ('day_column = "dt"\n[clicks]', "[clicks]", r"\[impressions\] needs a day_column"),
        ('table = "ads.impressions"\n', "", "needs one of files, table and format, and has none"),
        ('table = "ads.impressions"', 'table = "a"\nformat = "delta"', "has table and format"),
        ('table = "ads.impressions"', 'table = "a"\npath = "b"', "has a path without a format"),
        ('files = "users.csv"', 'files = "users.csv"\noptions = {sep = ";"}', r"\[users\] has options, which go with"),
        ('files = "users.csv"', 'files = "{date}/users.csv"', r"\[users\] files must not name a day"),
        ('files = "users.csv"', 'files = "/users.csv"', r"\[users\] files must be below the folder"),
        ('attributes = ["age"]', 'attributes = ["age", "age"]', r"\[users.attributes\] names a column twice"),
        ('day_column = "dt"\n[clicks]', 'day_column = "dt"\nday_format = "yyyyMMdd"\n[clicks]', "does not tell days"),
        ("[impressions]", "settle_hours = -1\n[impressions]", "settle_hours: Input should be greater than or equal"),
        (
            "[impressions]",
            'image_root = "s3a://shop"\n[impressions]',
            r"\[image_root\] is 's3a://shop', and pictures are",
        ),
        ("[impressions]", "settle_hours = 1\nsettle_hours = 2\n[impressions]", "cannot be read: Cannot overwrite"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder / "mapping.toml", old, new)
    with pytest.raises(ValueError, match=message):
        read_mapping(folder, "table")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ('table = "a"\nday_column = "dt"', r"\[impressions\] needs files; or set OSMF_SOURCE=table"),
        ('files = "impressions.csv"', "must name the day once"),
        ('files = "{date}/{date}.csv"', "must name the day once"),
        ('files = "impressions-{date}.csv"', r"must have \{date\} in a folder"),
        ('files = "region=*/{date}/impressions.csv"', "no wildcard in the folders"),
        ('files = "{date}/impressions.csv"\nday_column = "dt"', "files name the day as"),
    ],
)
def test_a_drop_folder_names_the_day_by_folder(tmp_path: Path, location: str, message: str) -> None:
    events = f'[impressions]\n{location}\n[clicks]\nfiles = "{{date}}/clicks.csv"\n'
    (tmp_path / "mapping.toml").write_text(events + EVENT_COLUMNS + DIMENSIONS)
    with pytest.raises(ValueError, match=message):
        read_mapping(tmp_path, "files")


def test_a_drop_folder_is_no_table(folder: Path) -> None:
    edit(folder / "mapping.toml", 'table = "ads.impressions"\nday_column = "dt"', 'files = "{date}/impressions.csv"')
    with pytest.raises(ValueError, match=r"\[impressions\] needs table or format; or set OSMF_SOURCE=files"):
        read_mapping(folder, "table")


def test_pairs_must_say_how_sure_they_are(folder: Path) -> None:
    pairs = '[preference_pairs]\nfiles = "pairs.csv"\n' + PAIR_COLUMNS
    (folder / "mapping.toml").write_text((folder / "mapping.toml").read_text() + pairs)
    read_mapping(folder, "table")
    edit(folder / "mapping.toml", 'chosen_better_probability = "p"', "")
    with pytest.raises(ValueError, match=r"\[preference_pairs.columns\] lacks chosen_better_probability"):
        read_mapping(folder, "table")


def test_a_secret_is_in_no_message(folder: Path) -> None:
    edit(folder / "mapping.toml", 'password = "hunter2"', 'password = ["hunter2"]')
    with pytest.raises(ValueError, match=r"\[clicks.options.password") as caught:
        read_mapping(folder, "table")
    assert "hunter2" not in str(caught.value)


def test_no_mapping_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mapping.toml is missing: OSMF_SOURCE=files needs it"):
        read_mapping(tmp_path, "files")
    (tmp_path / "mapping.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read"):
        read_mapping(tmp_path, "files")
