"""Every column of every table that is computed has an origin, and the asset graph agrees."""

from __future__ import annotations

import dagster as dg
import pytest

from osmf_pipelines.assets.metadata import column_lineage
from osmf_pipelines.column_lineage import ColumnOrigin, column_origins
from osmf_pipelines.definitions import build_defs
from osmf_pipelines.settings import Settings
from osmf_pipelines.tables import TABLES

DELIVERED = {
    "bronze_impressions",
    "bronze_clicks",
    "quarantined_events",
    "ingest_ledger",
    "users",
    "products",
    "creatives",
}
WITHOUT_ORIGIN = {
    "attribution_ledger": {"event_type"},
    "training_export": {"export_table", "export_path"},
    "pretrained_model": {"metric", "mlflow_run_id"},
    "global_dpo_model": {"metric", "mlflow_run_id"},
    "group_dpo_model": {"metric", "mlflow_run_id"},
    "chosen_only_model": {"metric", "mlflow_run_id"},
    "shuffled_dpo_model": {"metric", "mlflow_run_id"},
    "group_reward_model": {"metric", "mlflow_run_id"},
    "truth_report": {"measure"},
    "policy_values": {"users", "estimator"},
    "evaluation_report": {"arm", "report_path"},
    "generated_creatives": {"num_inference_steps", "guidance_scale"},
    "serving_map": {"entry"},
    "registered_model": {"model_name", "model_version", "alias", "mlflow_run_id"},
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Table to the tables that its asset depends on, where the truth is known."""
    truth = tmp_path_factory.mktemp("truth")
    (truth / "market.json").touch()
    assets = build_defs(Settings(truth_path=truth)).resolve_asset_graph()
    return {
        key.path[-1]: {parent.path[-1] for parent in assets.get(key).parent_keys} for key in assets.get_all_asset_keys()
    }


def test_nothing_is_computed_from_what_knows_the_truth(graph: dict[str, set[str]]) -> None:
    assert "truth_report" in graph
    assert not any("truth_report" in parents for parents in graph.values())


def test_the_lineage_begins_with_what_a_source_delivers() -> None:
    assert {name for name in TABLES if not column_origins(name)} == DELIVERED


@pytest.mark.parametrize("name", sorted(TABLES.keys() - DELIVERED))
def test_every_column_has_an_origin_unless_it_is_a_constant(name: str) -> None:
    origins = column_origins(name)
    assert list(origins) == TABLES[name].column_names
    assert {column for column in origins if not origins[column]} == WITHOUT_ORIGIN.get(name, set())


@pytest.mark.parametrize("name", sorted(TABLES.keys() - DELIVERED))
def test_every_origin_is_a_column_of_a_table_that_the_asset_depends_on(name: str, graph: dict[str, set[str]]) -> None:
    origins = {origin for found in column_origins(name).values() for origin in found}
    assert {origin.table for origin in origins} <= graph[name]
    assert [origin for origin in origins if origin.column not in TABLES[origin.table].column_names] == []


def test_click_times_reach_the_pairs() -> None:
    """The longest way: every step from a pair's probability back to when a click happened."""
    reached = {ColumnOrigin("preference_pairs", "chosen_better_probability")}
    while True:
        further = {o for at in reached for o in column_origins(at.table).get(at.column, ())}
        if further <= reached:
            break
        reached |= further
    assert ColumnOrigin("bronze_clicks", "clicked_at") in reached
    assert ColumnOrigin("users", "attributes") in reached
    assert ColumnOrigin("products", "price") not in reached


def test_a_name_that_two_inputs_have_comes_from_the_first() -> None:
    assert column_origins("group_ctr")["product_id"] == (ColumnOrigin("creative_stats", "product_id"),)
    assert column_origins("group_ctr")["group_id"] == (ColumnOrigin("user_groups", "group_id"),)


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(ValueError, match="no_such_table"):
        column_origins("no_such_table")


def test_lineage_carries_the_prefix_of_the_lake() -> None:
    lineage = column_lineage("creative_stats", ("open_bandit",))
    assert lineage.deps_by_column["num_clicks"] == [
        dg.TableColumnDep(dg.AssetKey(["open_bandit", "silver_exposures"]), name)
        for name in ("is_clicked", "model_version")
    ]
