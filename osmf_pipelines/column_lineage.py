"""Which columns each column of a table is computed from, for every table that this project computes.

Plain data: nothing here imports Spark or Dagster. Tables that hold what a source delivered (events, users, products,
creatives, the ledger of events read) begin the lineage and have no origins. How a column is computed belongs in
`spark/`, what it means in `tables.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from osmf_pipelines.tables import TABLES


@dataclass(frozen=True)
class ColumnOrigin:
    """A column that another is computed from."""

    table: str
    column: str


@dataclass(frozen=True)
class _Derivation:
    """How the columns of one table come about.

    Attributes:
        inputs: tables that it is computed from. A column that is not told in `origins` comes from the first of them
            that has a column of its name.
        origins: lines of `column | table.column,column table.column`; `-` is a constant, a setting or generated.
    """

    inputs: tuple[str, ...]
    origins: str = ""


_EFFECTIVE = "creative_stats.num_impressions,num_clicks,slot_type,position,event_date"
_RATE_EVIDENCE = f"{_EFFECTIVE} user_groups.group_id product_splits.split"
_GROUP_EVIDENCE = f"""{_EFFECTIVE} creative_stats.cell,user_fold,product_id,creative_id cell_users.user_id
    creative_features.feature_values product_splits.split"""
_CHOICE = f"{_EFFECTIVE} creative_stats.user_fold,creative_id user_groups.group_id product_splits.split"
_VALUED = f"silver_exposures.is_clicked,propensity,creative_id,user_fold,user_id,cell {_CHOICE}"
_POSTERIOR = "group_ctr.creative_id,posterior_shape,posterior_rate"
_EXPORTED_ROWS = """group_features.group_id products.product_id creatives.creative_id group_ctr.num_clicks
    preference_pairs.chosen_creative_id,rejected_creative_id"""
_MODELS = ("pretrained_model", "global_dpo_model", "group_dpo_model", "chosen_only_model", "shuffled_dpo_model")
_MODEL_PATHS = " ".join(f"{model}.model_path" for model in _MODELS)
_JUDGED = f"{_MODEL_PATHS} training_export.data_hash user_groups.cell creative_stats.num_impressions"
_DRAWN_FROM = "training_export.data_hash registered_model.artifact_sha256"


def _model(*inputs: str) -> _Derivation:
    trained_on = " ".join(
        "training_export.data_hash" if name == "training_export" else f"{name}.artifact_sha256" for name in inputs
    )
    return _Derivation(
        inputs,
        f"""
        metric          | -
        value           | {trained_on}
        model_path      | {trained_on}
        artifact_sha256 | {trained_on}
        mlflow_run_id   | -""",
    )


_DERIVATIONS = {
    "product_splits": _Derivation(("products",), "split | products.product_id,cutout_path"),
    "product_masks": _Derivation(
        ("creatives",),
        """
        mask_path       | creatives.mask_path,image_path
        mask_source     | creatives.mask_path,image_path
        mask_coverage   | creatives.mask_path,image_path
        mask_edge_share | creatives.mask_path,image_path
        refusal         | creatives.mask_path,image_path""",
    ),
    "creative_features": _Derivation(
        ("creatives", "products", "product_masks"),
        "feature_values | creatives.feature_values,image_path product_masks.mask_path",
    ),
    "silver_exposures": _Derivation(
        ("bronze_impressions", "bronze_clicks", "users", "products"),
        """
        event_date | bronze_impressions.impressed_at
        cell       | users.attributes
        user_fold  | bronze_impressions.user_id
        is_clicked | bronze_clicks.impression_id,clicked_at bronze_impressions.impressed_at""",
    ),
    "attribution_ledger": _Derivation(
        ("bronze_impressions", "bronze_clicks"),
        """
        source_date | bronze_impressions.source_date bronze_clicks.source_date
        event_type  | -
        outcome     | bronze_impressions.impressed_at,num_user_impressions
                      bronze_clicks.source_date,click_id,impression_id,clicked_at
        num_events  | bronze_impressions.impression_id bronze_clicks.click_id""",
    ),
    "creative_stats": _Derivation(
        ("silver_exposures",),
        """
        num_impressions | silver_exposures.impression_id,model_version
        num_clicks      | silver_exposures.is_clicked,model_version
        inverse_propensity_millis | silver_exposures.propensity""",
    ),
    "cell_users": _Derivation(("silver_exposures",)),
    "user_groups": _Derivation(
        ("creative_stats", "cell_users", "creative_features", "product_splits"),
        f"""
        as_of_date | creative_stats.event_date
        group_id   | {_GROUP_EVIDENCE}""",
    ),
    "group_lineage": _Derivation(
        ("user_groups", "cell_users"),
        """
        previous_as_of_date | user_groups.as_of_date
        previous_group_id   | user_groups.group_id,cell cell_users.cell,user_id
        users_kept_share    | user_groups.group_id,cell cell_users.cell,user_id
        has_same_rule       | user_groups.group_id""",
    ),
    "group_features": _Derivation(
        ("creative_stats", "cell_users", "creative_features", "product_splits"),
        f"""
        as_of_date    | creative_stats.event_date
        group_id      | {_GROUP_EVIDENCE}
        is_scope_root | creative_stats.scope
        rule          | {_GROUP_EVIDENCE}
        num_users     | cell_users.user_id
        preference    | {_GROUP_EVIDENCE}
        preference_se | {_GROUP_EVIDENCE}
        attribute_shares    | cell_users.cell,user_id
        top_creative_ids    | creative_stats.creative_id {_EFFECTIVE} product_splits.split
        bottom_creative_ids | creative_stats.creative_id {_EFFECTIVE} product_splits.split
        description   | cell_users.cell,user_id creative_features.feature_names {_GROUP_EVIDENCE}""",
    ),
    "group_ctr": _Derivation(
        ("creative_stats", "user_groups", "product_splits"),
        f"""
        is_scope_root | creative_stats.scope
        effective_impressions | {_EFFECTIVE}
        posterior_shape | {_RATE_EVIDENCE}
        posterior_rate  | {_RATE_EVIDENCE}
        ctr_rate      | {_RATE_EVIDENCE}
        ctr_rate_low  | {_RATE_EVIDENCE}
        ctr_rate_high | {_RATE_EVIDENCE}""",
    ),
    "preference_pairs": _Derivation(
        ("group_ctr", "product_splits"),
        f"""
        chosen_creative_id   | {_POSTERIOR}
        rejected_creative_id | {_POSTERIOR}
        chosen_better_probability | {_POSTERIOR}
        log_rate_ratio       | {_POSTERIOR}
        chosen_effective_impressions   | group_ctr.effective_impressions
        rejected_effective_impressions | group_ctr.effective_impressions
        is_contradiction     | group_ctr.scope,group_id,creative_id,posterior_shape,posterior_rate""",
    ),
    "truth_report": _Derivation(
        ("group_ctr", "user_groups", "cell_users", "creative_stats", "creatives"),
        f"""
        measure          | -
        probability_from | {_POSTERIOR}
        value            | {_POSTERIOR} group_ctr.ctr_rate,ctr_rate_low,ctr_rate_high user_groups.group_id,cell
                           cell_users.user_id creative_stats.num_impressions,num_clicks creatives.image_path
        num_cases        | {_POSTERIOR} user_groups.cell cell_users.user_id""",
    ),
    "policy_values": _Derivation(
        ("silver_exposures", "creative_stats", "user_groups", "product_splits"),
        f"""
        as_of_date    | creative_stats.event_date
        users         | -
        logged_arm    | silver_exposures.experiment_id,arm
        policy        | silver_exposures.experiment_id,arm
        compared_with | silver_exposures.experiment_id,arm
        estimator     | -
        value         | {_VALUED}
        value_low     | {_VALUED}
        value_high    | {_VALUED}
        num_users     | silver_exposures.user_id,user_fold
        num_impressions | silver_exposures.impression_id,user_fold,propensity
        effective_impressions | silver_exposures.propensity,creative_id {_CHOICE}
        effective_clicks | silver_exposures.propensity,creative_id,is_clicked {_CHOICE}
        mean_weight   | silver_exposures.propensity,creative_id {_CHOICE}
        clipped_share | silver_exposures.propensity,creative_id {_CHOICE}""",
    ),
    "training_export": _Derivation(
        (
            "group_features",
            "group_ctr",
            "preference_pairs",
            "products",
            "product_splits",
            "creatives",
            "product_masks",
            "creative_features",
        ),
        f"""
        export_table | -
        num_rows     | {_EXPORTED_ROWS}
        num_files    | {_EXPORTED_ROWS}
        data_hash    | {_EXPORTED_ROWS} group_features.preference,preference_se,num_users,attribute_shares,description
                       products.title,price,cutout_path product_splits.split product_masks.image_path,mask_path
                       preference_pairs.chosen_better_probability,log_rate_ratio,is_contradiction
                       creative_features.feature_values
        export_path  | -""",
    ),
    "pretrained_model": _model("training_export"),
    **{name: _model("training_export", "pretrained_model") for name in _MODELS[1:]},
    "group_reward_model": _model("training_export"),
    "evaluation_report": _Derivation(
        ("training_export", "user_groups", "creative_stats", *_MODELS, "group_reward_model"),
        f"""
        arm                | -
        num_pictures       | training_export.data_hash
        true_ctr_rate      | {_JUDGED}
        true_ctr_low       | {_JUDGED}
        true_ctr_high      | {_JUDGED}
        picture_quality    | {_MODEL_PATHS} training_export.data_hash
        product_fidelity   | {_MODEL_PATHS} training_export.data_hash
        predicted_log_lift | {_MODEL_PATHS} training_export.data_hash group_reward_model.artifact_sha256
        report_path        | -""",
    ),
    "registered_model": _Derivation(
        ("group_dpo_model",),
        """
        model_name    | -
        model_version | -
        alias         | -
        mlflow_run_id | -""",
    ),
    "generated_creatives": _Derivation(
        ("training_export", "registered_model"),
        f"""
        scope               | {_DRAWN_FROM}
        group_id            | {_DRAWN_FROM}
        is_scope_root       | {_DRAWN_FROM}
        product_id          | {_DRAWN_FROM}
        picture_path        | {_DRAWN_FROM}
        picture_sha256      | {_DRAWN_FROM}
        seed                | registered_model.artifact_sha256
        num_inference_steps | -
        guidance_scale      | -
        scene_distance      | {_DRAWN_FROM}
        clipped_share       | {_DRAWN_FROM}
        refusal             | {_DRAWN_FROM}""",
    ),
    "serving_map": _Derivation(
        ("generated_creatives",),
        """
        entry     | -
        scope     | user_groups.scope group_features.scope
        cell      | user_groups.cell
        group_id  | user_groups.group_id group_features.group_id
        drawn_for | generated_creatives.group_id,refusal""",
    ),
}


def column_origins(name: str) -> dict[str, tuple[ColumnOrigin, ...]]:
    """Returns the columns behind each column of the table `name`, none where it is a constant, a setting or generated.

    Empty for a table that a source delivers.

    Raises:
        ValueError: when there is no such table, or when a column's origin is neither told nor in an input.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}: tables.py lists {', '.join(TABLES)}.")
    if name not in _DERIVATIONS:
        return {}
    derivation = _DERIVATIONS[name]
    told = _parse(derivation.origins)
    return {
        column: told[column] if column in told else (_same_named(name, column, derivation.inputs),)
        for column in TABLES[name].column_names
    }


def _same_named(name: str, column: str, inputs: tuple[str, ...]) -> ColumnOrigin:
    for table in inputs:
        if column in TABLES[table].column_names:
            return ColumnOrigin(table, column)
    raise ValueError(
        f"{name}.{column} is in none of {', '.join(inputs)}: say in column_lineage.py where it comes from."
    )


def _parse(origins: str) -> dict[str, tuple[ColumnOrigin, ...]]:
    parsed: dict[str, tuple[ColumnOrigin, ...]] = {}
    column = ""
    for line in origins.strip().splitlines():
        *start, text = line.split("|")
        column = start[0].strip() if start else column  # a line without a bar goes on
        found = [
            ColumnOrigin(table, origin)
            for table, _, origins_of in (word.partition(".") for word in text.split() if word != "-")
            for origin in origins_of.split(",")
        ]
        parsed[column] = tuple(dict.fromkeys([*parsed.get(column, ()), *found]))
    return parsed
