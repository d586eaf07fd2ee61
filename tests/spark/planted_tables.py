"""Rows of the tables behind a training export, written by hand."""

from __future__ import annotations

from osmf_pipelines.tables import TABLES


def table_frame(spark, name, rows):
    """Rows given as dicts; what they don't name is null."""
    columns = TABLES[name].column_names
    return spark.createDataFrame([tuple(row.get(column) for column in columns) for row in rows], TABLES[name].ddl)


def group_row(group_id, *, scope="shoes", is_root=False):
    return {
        "group_id": group_id,
        "scope": scope,
        "is_scope_root": is_root,
        "num_users": 100,
        "feature_names": ["warmth", "texture"],
        "preference": [2.0, -1.0],
        "preference_se": [0.5, 0.0],
        "attribute_shares": {"age=old": 0.25, "age=young": 0.75},
        "top_creative_ids": ["a", "b"],
        "bottom_creative_ids": [],
        "description": f"people of {group_id}",
    }


def rate_row(creative_id, product_id="whole", *, num_clicks=5, ctr_rate=0.01, group_id="g", is_root=False):
    return {
        "group_id": group_id,
        "scope": "shoes",
        "is_scope_root": is_root,
        "product_id": product_id,
        "creative_id": creative_id,
        "num_clicks": num_clicks,
        "ctr_rate": ctr_rate,
    }


def pair_row(chosen, rejected, product_id="whole", *, group_id="g"):
    return {
        "group_id": group_id,
        "scope": "shoes",
        "is_scope_root": group_id == "root",
        "product_id": product_id,
        "chosen_creative_id": chosen,
        "rejected_creative_id": rejected,
        "chosen_better_probability": 0.95,
        "log_rate_ratio": 0.3,
        "is_contradiction": False,
        "split": "train",
    }
