"""The privacy floor and the restricted layer, over all bytes that are written elsewhere."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES
from tests.lake.conftest import tiny_settings
from tests.lake.jobs import run_job
from tests.tiny_drop import FIRST_DAY, Drop, make_drop

pytestmark = pytest.mark.slow
FLOOR = 5
# Tables up to the floor: what is below it may still be there, though never a user.
BEFORE_THE_FLOOR = {"products", "creatives", "product_splits", "product_masks", "creative_features", "creative_stats"}


def _add_scope(drop: Drop, num_users: int) -> tuple[str, list[str]]:
    """A scope of its own that `num_users` users see, all with the same telling attribute; returns it and their ids."""
    scope = f"canaryscope{num_users}"
    users = [f"canaryuser{num_users}x{number}" for number in range(num_users)]
    creatives = [f"{scope}-item-{letter}" for letter in "ab"]
    _append(
        drop.folder / "users.csv", [{"who": user, "age": f"canaryage{num_users}", "city": "north"} for user in users]
    )
    _append(drop.folder / "products.csv", [{"item": f"{scope}-item", "category": scope, "cutout": "shoe-0.png"}])
    rows = [{"ad": ad, "item": f"{scope}-item", "picture": "shoe-0-a.png", "mask": "mask.png"} for ad in creatives]
    _append(drop.folder / "creatives.csv", rows)
    rng = random.Random(num_users)
    noon = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, 12, tzinfo=UTC)
    for number in range(60):
        imp = f"{scope}-{number}"
        row = {"imp": imp, "who": users[number % num_users], "item": f"{scope}-item", "ad": creatives[number % 2]}
        drop.impressions[FIRST_DAY].append({**row, "ts": noon + timedelta(seconds=number), "pos": 1})
        if rng.random() < 0.5:
            at = noon + timedelta(seconds=number + 9)
            drop.clicks[FIRST_DAY].append({"click": f"k-{imp}", "imp": imp, "ts": at})
    return scope, users


def _append(path: Path, rows: list[dict[str, str]]) -> None:
    pd.concat([pd.read_csv(path), pd.DataFrame(rows)]).to_csv(path, index=False)


def _texts(folder: Path) -> dict[Path, str]:
    """Everything below `folder` as text; Parquet decoded as well, since it is compressed."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            text += str(pq.read_table(path).to_pylist())
        found[path] = text
    return found


def _run(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert run_job(settings, "ingest_days", FIRST_DAY, instance=instance).success
    assert run_job(settings, "form_pairs", FIRST_DAY, instance=instance).success


def test_below_the_floor_there_is_no_trace_and_users_stay_where_they_are(spark: SparkSession, tmp_path: Path) -> None:
    drop = make_drop(tmp_path / "drop", num_days=1, num_impressions=6000)
    users_of = dict(_add_scope(drop, num_users) for num_users in (FLOOR - 1, FLOOR, FLOOR + 1))
    drop.write()
    settings = tiny_settings(tmp_path / "home", drop.folder).model_copy(update={"min_group_users": FLOOR})
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        _run(settings, instance)

    lake = LakeResource(settings).lake
    groups = {row["scope"] for row in lake.read("group_features").collect()}
    assert groups == {"shoe", "lamp", f"canaryscope{FLOOR}", f"canaryscope{FLOOR + 1}"}

    restricted = [Path(lake.path(name)) for name, table in TABLES.items() if table.is_restricted]
    open_early = [Path(lake.path(name)) for name in BEFORE_THE_FLOOR]
    texts = _texts(settings.home) | _texts(tmp_path / "dagster")
    elsewhere = {path: text for path, text in texts.items() if not any(r in path.parents for r in restricted)}
    late = {path: text for path, text in elsewhere.items() if not any(r in path.parents for r in open_early)}
    assert len(late) > 100

    hashed = [row["user_id"] for row in lake.read("users").select("user_id").collect()]
    raw = [user for users in users_of.values() for user in users] + ["user-0001"]
    canaries = [f"canaryscope{FLOOR - 1}", f"canaryage{FLOOR - 1}"]
    # The look itself sees: the same canaries of the scopes above the floor are there, and users are in bronze.
    assert any(f"canaryscope{FLOOR}" in text for text in late.values())
    assert any(f"canaryage{FLOOR}" in text for text in late.values())
    assert any(hashed[0] in text for text in texts.values())

    leaked = {path for path, text in elsewhere.items() if any(user in text for user in (*hashed, *raw))}
    assert leaked == set()
    assert {path for path, text in late.items() if any(canary in text for canary in canaries)} == set()
