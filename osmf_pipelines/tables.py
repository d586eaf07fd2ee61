"""Every table of the lake: its grain, its columns, how it is partitioned, who may read it.

The one list that the lake, the quality suites, the assets and their documentation agree on. Plain data: nothing here
imports Spark or Dagster. How a table is computed belongs in `spark/`, what must hold of it in `quality/`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: its name, its Spark SQL type and what it means (units included)."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One Delta table.

    Attributes:
        name: table = asset = folder.
        grain: what one row is.
        columns: in the order in which they are stored.
        partition_column: the date column that a refresh replaces, or None for a snapshot replaced as a whole.
        is_restricted: holds personal data (a user's id, hashed or not); nothing published downstream may repeat it.
        provenance_columns: columns outside the content hash.
        personal_columns: columns that no message, metadata or log may show.
        constraints: name to SQL condition that Delta itself enforces on every row, the last line of defence.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    partition_column: str | None = None
    is_restricted: bool = False
    provenance_columns: tuple[str, ...] = ()
    personal_columns: tuple[str, ...] = ()
    constraints: tuple[tuple[str, str], ...] = ()

    @property
    def ddl(self) -> str:
        """The schema as Spark DDL."""
        return ", ".join(f"`{column.name}` {column.type}" for column in self.columns)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]


def _columns(text: str) -> tuple[Column, ...]:
    rows = (line.split("|") for line in text.strip().splitlines())
    return tuple(Column(name.strip(), type_.strip(), meaning.strip()) for name, type_, meaning in rows)


_EVENT_CONTEXT = """
    position          | int       | place in the slot, 1 is the first
    slot_type         | string    | kind of ad slot
    propensity        | double    | probability with which the logging policy chose this creative, null where unknown
    experiment_id     | string    | experiment that the impression belongs to, or null
    arm               | string    | arm of that experiment, or null
    model_version     | string    | model that drew the creative, or null"""

_TABLES = (
    Table(
        "bronze_impressions",
        "one row per impression event of a source day",
        _columns(f"""
    source_date       | date      | day of the source's logs
    impression_id     | string    | unique id of the impression
    user_id           | string    | keyed hash of the user's id
    product_id        | string    | product shown
    creative_id       | string    | creative shown
    impressed_at      | timestamp | when it was shown (UTC)
    {_EVENT_CONTEXT.strip()}
    num_user_impressions | bigint | impressions of this user on this day, this one included
    source_file       | string    | file that the event came from
    ingested_at       | timestamp | when it was read (UTC)"""),
        partition_column="source_date",
        is_restricted=True,
        provenance_columns=("source_file", "ingested_at"),
        personal_columns=("user_id",),
        constraints=(
            ("has_ids", "impression_id IS NOT NULL AND user_id IS NOT NULL AND creative_id IS NOT NULL"),
            ("day_of_impression", "to_date(impressed_at) = source_date"),
        ),
    ),
    Table(
        "bronze_clicks",
        "one row per click event of a source day",
        _columns("""
    source_date       | date      | day of the source's logs
    click_id          | string    | id of the click event
    impression_id     | string    | impression that was clicked
    clicked_at        | timestamp | when it was clicked (UTC); on an earlier day where the click was delivered late
    source_file       | string    | file that the event came from
    ingested_at       | timestamp | when it was read (UTC)"""),
        partition_column="source_date",
        is_restricted=True,
        provenance_columns=("source_file", "ingested_at"),
        constraints=(("has_ids", "click_id IS NOT NULL AND impression_id IS NOT NULL"),),
    ),
    Table(
        "quarantined_events",
        "one row per refused event of a source day, as it came",
        _columns("""
    source_date       | date          | day of the source's logs
    event_type        | string        | impression or click
    reasons           | array<string> | why it was refused
    payload           | string        | the event as it came, as JSON
    source_file       | string        | file that the event came from
    ingested_at       | timestamp     | when it was read (UTC)"""),
        partition_column="source_date",
        is_restricted=True,
        provenance_columns=("source_file", "ingested_at"),
        personal_columns=("payload",),
        constraints=(("has_reason", "size(reasons) > 0"),),
    ),
    Table(
        "ingest_ledger",
        "one row per (source_date, event_type, outcome)",
        _columns("""
    source_date       | date   | day of the source's logs
    event_type        | string | impression or click
    outcome           | string | kept, deduplicated or quarantined
    num_events        | bigint | events read on that day that came to this"""),
        partition_column="source_date",
        constraints=(("counts", "num_events >= 0"),),
    ),
    Table(
        "users",
        "one row per user",
        _columns("""
    user_id           | string             | keyed hash of the user's id
    attributes        | map<string,string> | attribute name to binned value"""),
        is_restricted=True,
        personal_columns=("user_id", "attributes"),
        constraints=(("has_id", "user_id IS NOT NULL"),),
    ),
    Table(
        "products",
        "one row per product",
        _columns("""
    product_id        | string | id of the product
    scope             | string | leaf category, inside which groups are formed
    title             | string | title as shown to users
    price             | double | price in the shop's currency, null where unknown
    cutout_path       | string | RGBA picture of the product alone, at the place where it is to stand, or null"""),
    ),
    Table(
        "creatives",
        "one row per creative",
        _columns("""
    creative_id       | string | id of the creative
    product_id        | string | product that it advertises
    image_path        | string | the ad image, or null
    mask_path         | string | where the product is (white), as supplied, or null
    feature_values    | array<double> | features that came with the source, used where there is no image, or null
    feature_names     | array<string> | their names, or null"""),
    ),
    Table(
        "product_splits",
        "one row per product",
        _columns("""
    product_id        | string | id of the product
    scope             | string | leaf category
    split             | string | train, validation or test; products with the same picture fall together"""),
    ),
    Table(
        "product_masks",
        "one row per creative with a picture",
        _columns("""
    creative_id       | string | id of the creative
    product_id        | string | product that it advertises
    image_path        | string | the ad image
    mask_path         | string | where the product is (white), or null: the creative then serves pairs only
    mask_source       | string | supplied, alpha (the image's own), segmented (by a model) or none
    mask_coverage     | double | share of the picture under the product, in [0, 1], or null
    mask_edge_share   | double | share of the picture's border under the product, in [0, 1], or null
    refusal           | string | why the picture or its mask is not used, or null"""),
    ),
    Table(
        "creative_features",
        "one row per creative with a readable picture, or with features of its source",
        _columns("""
    creative_id       | string        | id of the creative
    product_id        | string        | product that it advertises
    scope             | string        | leaf category
    feature_names     | array<string> | names of the features, the same in every row of a scope
    feature_values    | array<double> | visual features outside the product's mask, or the source's own
    mask_coverage     | double        | share of the picture under the product, in [0, 1], or null"""),
    ),
    Table(
        "silver_exposures",
        "one row per impression_id",
        _columns(f"""
    event_date        | date      | day of the impression (UTC)
    impression_id     | string    | unique id of the impression
    user_id           | string    | keyed hash of the user's id
    scope             | string    | leaf category of the product
    cell              | string    | the user's binned attributes, `name=value` joined by bars, sorted by name
    user_fold         | int       | keyed hash of the user modulo 5, for held-out users
    product_id        | string    | product shown
    creative_id       | string    | creative shown
    impressed_at      | timestamp | when it was shown (UTC)
    {_EVENT_CONTEXT.strip()}
    is_clicked        | boolean   | a valid click came within the attribution window
    clicked_at        | timestamp | the earliest such click (UTC), or null"""),
        partition_column="event_date",
        is_restricted=True,
        personal_columns=("user_id", "cell"),
        constraints=(
            ("has_ids", "impression_id IS NOT NULL AND cell IS NOT NULL AND scope IS NOT NULL"),
            (
                "click_after_impression",
                "is_clicked = (clicked_at IS NOT NULL) AND (clicked_at IS NULL OR clicked_at >= impressed_at)",
            ),
        ),
    ),
    Table(
        "attribution_ledger",
        "one row per (source_date, event_type, outcome)",
        _columns("""
    source_date       | date   | day of the source's logs
    event_type        | string | impression or click
    outcome           | string | of impressions: exposure or bot; of clicks: see `spark/attribute.py`
    num_events        | bigint | events of that day's bronze rows that came to this"""),
        partition_column="source_date",
        constraints=(("counts", "num_events >= 0"),),
    ),
    Table(
        "creative_stats",
        "one row per (event_date, scope, cell, user_fold, product, creative, slot_type, position)",
        _columns("""
    event_date        | date   | day of the impressions
    scope             | string | leaf category
    cell              | string | the users' binned attributes
    user_fold         | int    | fold of the users
    product_id        | string | product shown
    creative_id       | string | creative shown
    slot_type         | string | kind of ad slot
    position          | int    | place in the slot
    num_impressions   | bigint | exposures of creatives that no model drew
    num_clicks        | bigint | exposures that were clicked
    inverse_propensity_millis | bigint | sum of round(1000 / propensity), or null where unknown"""),
        partition_column="event_date",
        constraints=(("counts", "num_impressions >= 1 AND num_clicks BETWEEN 0 AND num_impressions"),),
    ),
    Table(
        "cell_users",
        "one row per (event_date, scope, cell, user), of who was shown what no model drew",
        _columns("""
    event_date        | date   | day of the impressions
    scope             | string | leaf category
    cell              | string | the user's binned attributes
    user_id           | string | keyed hash of the user's id"""),
        partition_column="event_date",
        is_restricted=True,
        personal_columns=("user_id", "cell"),
    ),
    Table(
        "user_groups",
        "one row per (as_of_date, scope, cell)",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    scope             | string | leaf category
    cell              | string | binned user attributes
    group_id          | string | the group that the cell belongs to: hash of the group's rule"""),
        partition_column="as_of_date",
        constraints=(("has_group", "group_id IS NOT NULL AND cell IS NOT NULL"),),
    ),
    Table(
        "group_lineage",
        "one row per (as_of_date, group_id); nothing depends on it",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    scope             | string | leaf category
    group_id          | string | the group
    previous_as_of_date  | date   | the published as_of_date before this one, or null
    previous_group_id    | string | the group of that day that most of its users were in, or null
    users_kept_share  | double | share of its users who were in that group, in [0, 1], or null
    has_same_rule     | boolean | the rule, hence the id, is unchanged"""),
        partition_column="as_of_date",
    ),
    Table(
        "group_features",
        "one row per (as_of_date, group_id)",
        _columns("""
    as_of_date        | date          | last day of the evidence window
    group_id          | string        | hash of the group's rule
    scope             | string        | leaf category
    is_scope_root     | boolean       | the pseudo-group of everyone in the scope: one size for all
    rule              | string        | which cells belong to it, in words
    num_users         | bigint        | distinct users behind it in the window
    num_impressions   | bigint        | exposures in the window
    num_clicks        | bigint        | clicks in the window
    feature_names     | array<string> | names of the creative features behind the preference vector
    preference        | array<double> | preference vector: change of the log click rate per unit of each feature
    preference_se     | array<double> | its standard errors
    attribute_shares  | map<string,double> | share of its users per `attribute=value`
    top_creative_ids  | array<string> | exemplars it clicks most, training products only
    bottom_creative_ids | array<string> | exemplars it clicks least, training products only
    description       | string        | the same in plain language"""),
        partition_column="as_of_date",
    ),
    Table(
        "group_ctr",
        "one row per (as_of_date, group_id, product, creative)",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    group_id          | string | the group, or the scope's root
    scope             | string | leaf category
    is_scope_root     | boolean | the pseudo-group of everyone in the scope
    product_id        | string | product shown
    creative_id       | string | creative shown
    num_impressions   | bigint | exposures
    num_clicks        | bigint | clicks
    effective_impressions | double | exposures corrected for position and day: clicks / this = rate at position 1
    posterior_shape   | double | shape of the Gamma posterior of the click rate
    posterior_rate    | double | rate of that posterior, in effective impressions
    ctr_rate          | double | posterior mean click rate at position 1
    ctr_rate_low      | double | 2.5% quantile
    ctr_rate_high     | double | 97.5% quantile"""),
        partition_column="as_of_date",
        constraints=(("counts", "num_clicks BETWEEN 0 AND num_impressions"),),
    ),
    Table(
        "preference_pairs",
        "one row per (as_of_date, group_id, product, chosen, rejected)",
        _columns("""
    as_of_date        | date    | last day of the evidence window
    group_id          | string  | the group, or the scope's root
    scope             | string  | leaf category
    is_scope_root     | boolean | the pseudo-group of everyone in the scope
    product_id        | string  | product shown
    chosen_creative_id   | string | the creative preferred
    rejected_creative_id | string | the other one
    chosen_better_probability | double | P(rate of chosen > rate of rejected), in [0.5, 1]
    log_rate_ratio    | double  | log of the ratio of posterior mean rates, above 0
    chosen_effective_impressions   | double | evidence behind chosen
    rejected_effective_impressions | double | evidence behind rejected
    is_contradiction  | boolean | the same two creatives stand the other way round in another group of the scope
    split             | string  | of the product: train, validation or test"""),
        partition_column="as_of_date",
        constraints=(
            ("two_creatives", "chosen_creative_id <> rejected_creative_id"),
            ("probability", "chosen_better_probability BETWEEN 0.5 AND 1"),
        ),
    ),
)

_MODEL_COLUMNS = """
    as_of_date        | date   | last day of the logs behind it
    metric            | string | name of the metric
    value             | double | its value
    model_path        | string | folder of the saved model
    artifact_sha256   | string | hash over the model's files
    mlflow_run_id     | string | the MLflow run"""

_MODEL_TABLES = tuple(
    Table(name, "one row per (as_of_date, metric)", _columns(_MODEL_COLUMNS), partition_column="as_of_date")
    for name in (
        "pretrained_model",
        "group_dpo_model",
        "global_dpo_model",
        "chosen_only_model",
        "shuffled_dpo_model",
        "group_reward_model",
    )
)

_LATER_TABLES = (
    Table(
        "truth_report",
        "one row per (as_of_date, scope, measure, probability_from), of a simulated market's logs",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    scope             | string | leaf category
    measure           | string | what is told, as in docs/grouping.md
    probability_from  | double | lower end of the bin of claimed probabilities, null for measures of the scope
    value             | double | its value
    num_cases         | bigint | users, rates or comparisons behind it"""),
        partition_column="as_of_date",
    ),
    Table(
        "policy_values",
        "one row per (as_of_date, scope, users, logged_arm, policy, compared_with, estimator)",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    scope             | string | leaf category, null for all of them together
    users             | string | whose impressions: held_out from the choice of the policy, or all
    logged_arm        | string | arm on whose logs it is valued, EXPERIMENT/ARM, null where the logs name none
    policy            | string | logging (what was shown), best_for_all, best_per_group, or `arm` and its name
    compared_with     | string | policy whose value is taken off, own_logs for what an arm earned itself, null for none
    estimator         | string | on_policy, ips, snips or dr
    value             | double | clicks an impression, at the positions and on the days of the logs
    value_low         | double | lower end of its 95% interval, null where clicks are too few for one
    value_high        | double | upper end
    num_users         | bigint | users whose impressions are behind it
    num_impressions   | bigint | their impressions
    effective_impressions | double | effective sample size: impressions of its own that would say as much
    effective_clicks  | double | the same of clicks
    mean_weight       | double | near 1 where propensities are right and the logs hold all that the policy shows
    clipped_share     | double | share of impressions whose weight was clipped"""),
        partition_column="as_of_date",
    ),
    Table(
        "training_export",
        "one row per (as_of_date, exported table)",
        _columns("""
    as_of_date        | date   | last day of the evidence window
    export_table      | string | table of the export
    num_rows          | bigint | rows exported
    num_files         | int    | shards
    data_hash         | string | hash of the whole export
    export_path       | string | folder of the export"""),
        partition_column="as_of_date",
    ),
    Table(
        "evaluation_report",
        "one row per (as_of_date, arm, group_id)",
        _columns("""
    as_of_date        | date   | last day of the logs behind it
    arm               | string | random, oracle, or a model
    scope             | string | leaf category
    group_id          | string | the group, judged on products held out of training
    num_pictures      | bigint | pictures judged
    true_ctr_rate     | double | mean true click rate at position 1; null where there is no truth
    true_ctr_low      | double | lower end of its 95% interval, by bootstrap over products; null likewise
    true_ctr_high     | double | upper end; null likewise
    picture_quality   | double | mean quality term, in [0, 1]; null likewise
    product_fidelity  | double | 1 minus the mean change of the product's pixels, in [0, 1]; null for logged pictures
    predicted_log_lift | double | log click rate over that of logged pictures, by the group reward model; null for none
    report_path       | string | folder of the report"""),
        partition_column="as_of_date",
    ),
    Table(
        "registered_model",
        "one row per (as_of_date, model_name)",
        _columns("""
    as_of_date        | date   | last day of the logs behind it
    model_name        | string | name in the registry
    model_version     | bigint | version in the registry
    alias             | string | alias that it was given: champion, challenger, or none
    artifact_sha256   | string | hash over the model's files
    mlflow_run_id     | string | the MLflow run that logged it"""),
        partition_column="as_of_date",
    ),
    Table(
        "generated_creatives",
        "one row per (as_of_date, group_id, product_id) that was asked for",
        _columns("""
    as_of_date        | date   | day whose groups and products are drawn for
    scope             | string | leaf category
    group_id          | string | for whom
    is_scope_root     | boolean | for everyone of the scope
    product_id        | string | of what
    picture_path      | string | PNG file, null where the model drew no numbers
    picture_sha256    | string | of the file
    seed              | bigint | of the noise that it was drawn from
    model_version     | bigint | version in the registry that drew it
    artifact_sha256   | string | hash over the model's files
    num_inference_steps | int    | solver steps
    guidance_scale    | double | on the group
    scene_distance    | double | mean deviation of its scene's statistics from logged pictures, in standard deviations
    clipped_share     | double | share of its scene's colour values at 0 or 255
    refusal           | string | why it must not be shown, null where it may"""),
        partition_column="as_of_date",
    ),
    Table(
        "serving_map",
        "one row per (as_of_date, rule) and per (as_of_date, group_id, product_id) that has a picture",
        _columns("""
    as_of_date        | date   | day of the rules and pictures
    entry             | string | `rule`: who is in a group; `picture`: what the group is shown
    scope             | string | leaf category
    cell              | string | of a rule: user attributes, or `everyone` for whoever is in no other cell of the scope
    group_id          | string | the group
    product_id        | string | of a picture: the product
    drawn_for         | string | of a picture: group that it was drawn for, this one or the scope's root
    picture_path      | string | of a picture: PNG file
    picture_sha256    | string | of a picture: of the file
    model_version     | bigint | of a picture: version in the registry that drew it"""),
        partition_column="as_of_date",
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in (*_TABLES, *_MODEL_TABLES, *_LATER_TABLES)}
