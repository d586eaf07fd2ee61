"""What Dagster is given can be stored and shown, and says what it was made from."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from osmf_pipelines.assets.metadata import as_table, column_lineage, failing_rows_table, picture


def test_numbers_stay_numbers_and_the_rest_becomes_text() -> None:
    table = as_table([{"n": 3, "share": 0.5, "ok": True, "day": date(2026, 3, 2), "missing": None}])
    assert isinstance(table, dg.TableMetadataValue)
    assert table.records[0].data == {"n": 3, "share": 0.5, "ok": True, "day": "2026-03-02", "missing": None}
    assert [column.type for column in table.schema.columns] == ["int", "float", "bool", "string", "string"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_shown_as_text(value: float) -> None:
    table = as_table([{"gain": value}])
    assert isinstance(table, dg.TableMetadataValue)
    assert json.dumps(table.records[0].data, allow_nan=False) == json.dumps({"gain": str(value)})


def test_no_rows_are_told_in_a_word() -> None:
    assert as_table([]) == dg.MetadataValue.text("none")


def test_failing_rows_keep_their_columns_in_order() -> None:
    table = failing_rows_table(({"id": "a", "n": "1"}, {"id": "b", "n": "null"}))
    assert [column.name for column in table.schema.columns] == ["id", "n"]
    assert [record.data["n"] for record in table.records] == ["1", "null"]
    with pytest.raises(ValueError, match="leave the table out"):
        failing_rows_table(())


def test_a_picture_carries_its_bytes(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n and so on"
    path = tmp_path / "grid.png"
    path.write_bytes(png)
    start, _, data = picture(path, "grid").md_str.partition("base64,")
    assert start == "![grid](data:image/png;"
    assert base64.b64decode(data.removesuffix(")")) == png
    assert picture(png, "grid") == picture(path, "grid")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"grid\.png"):
        picture(tmp_path / "grid.png", "grid")


def test_dagster_stores_all_of_it() -> None:
    told = {
        "dagster/column_lineage": column_lineage("group_ctr", ("lake",)),
        "rows": as_table([{"n": 1}]),
        "picture": picture(b"png", "nothing"),
    }

    @dg.asset(key=["lake", "group_ctr"])
    def asset() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=told)

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([asset], instance=instance)
        stored = instance.get_latest_materialization_event(dg.AssetKey(["lake", "group_ctr"]))
    assert stored is not None
    materialization = stored.asset_materialization
    assert materialization is not None
    lineage = materialization.metadata["dagster/column_lineage"].value
    assert [dep.asset_key.path for dep in lineage.deps_by_column["group_id"]] == [["lake", "user_groups"]]
    assert materialization.metadata["rows"] == told["rows"]
