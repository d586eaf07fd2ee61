"""What must hold of each table before it is published, with the reason and how grave a breach is.

Plain data: Great Expectations is imported in `gate.py` alone. "Facts" are numbers that an asset counted on the way
(the ledger, what was left out), checked beside the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from osmf_models.records import SPLITS


@dataclass(frozen=True)
class Expectation:
    """One expectation.

    Attributes:
        name: name of the check, unique within the table.
        type: class in `great_expectations.expectations`.
        kwargs: its arguments.
        reason: why it must hold, shown to whoever has to mend the data.
        severity: "critical" stops the publication and everything downstream; "warning" is shown.
        subject: "rows" of the candidate, or the "facts" counted beside it.
    """

    name: str
    type: str
    kwargs: dict[str, Any]
    reason: str
    severity: Literal["critical", "warning"] = "critical"
    subject: Literal["rows", "facts"] = field(default="rows")


def _set(column: str, reason: str) -> Expectation:
    return Expectation(f"{column}_is_set", "ExpectColumnValuesToNotBeNull", {"column": column}, reason)


def _unique(columns: list[str], reason: str) -> Expectation:
    if len(columns) == 1:
        return Expectation(f"{columns[0]}_is_unique", "ExpectColumnValuesToBeUnique", {"column": columns[0]}, reason)
    return Expectation("one_row_per_grain", "ExpectCompoundColumnsToBeUnique", {"column_list": columns}, reason)


def _between(column: str, low: float | None, high: float | None, reason: str, **more: Any) -> Expectation:
    limits = {"column": column, "min_value": low, "max_value": high, **more}
    return Expectation(f"{column}_in_range", "ExpectColumnValuesToBeBetween", limits, reason)


def _one_of(column: str, values: tuple[str, ...], reason: str) -> Expectation:
    return Expectation(
        f"{column}_is_known", "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, reason
    )


def _at_least(larger: str, smaller: str, reason: str) -> Expectation:
    pair = {"column_A": larger, "column_B": smaller, "or_equal": True}
    return Expectation(f"{smaller}_at_most_{larger}", "ExpectColumnPairValuesAToBeGreaterThanB", pair, reason)


def _balanced(name: str, total: str, parts: str, reason: str) -> Expectation:
    pair = {"column_A": total, "column_B": parts}
    return Expectation(name, "ExpectColumnPairValuesToBeEqual", pair, reason, subject="facts")


def _fact(name: str, column: str, low: float | None, high: float | None, reason: str, **more: Any) -> Expectation:
    limits = {"column": column, "min_value": low, "max_value": high}
    return Expectation(name, "ExpectColumnValuesToBeBetween", limits, reason, subject="facts", **more)


_NOT_EMPTY = Expectation("has_rows", "ExpectTableRowCountToBeBetween", {"min_value": 1}, "an empty table serves nobody")

_EVENT_LEDGER = (
    _balanced(
        "ledger_balances", "num_read", "num_accounted", "read = kept + deduplicated + quarantined, no event lost"
    ),
    _fact(
        "quarantine_is_small",
        "quarantined_share",
        None,
        0.01,
        "more than 1% of bad rows means that something upstream has changed",
        severity="warning",
    ),
    _fact("quarantine_is_bearable", "quarantine_excess", None, 0.0, "too many bad rows to trust the rest of the day"),
)

_COUNTS = (
    _unique(["source_date", "event_type", "outcome"], "one number per day, kind of event and outcome"),
    _between("num_events", 0, None, "a number of events"),
)

_MODEL_SUITE = (
    _unique(["as_of_date", "metric"], "one value per metric"),
    _fact("metrics_are_finite", "num_not_finite", 0, 0, "a metric that is not a number means that training failed"),
    _fact("training_finished", "num_steps_missing", 0, 0, "the run took every step of its recipe"),
    _fact("artifacts_are_intact", "num_artifacts_changed", 0, 0, "the model's files are those that the run wrote"),
)

SUITES: dict[str, tuple[Expectation, ...]] = {
    "bronze_impressions": (
        _NOT_EMPTY,
        _unique(["source_date", "impression_id"], "one showing of a day is one row"),
        _set("user_id", "an impression without a user cannot be grouped"),
        _set("creative_id", "an impression without a creative teaches nothing"),
        _between("position", 1, 1000, "positions count from 1"),
        _between("propensity", 0, 1, "a probability", strict_min=True),
        *_EVENT_LEDGER,
        _fact("every_day_has_impressions", "num_read", 1, None, "a day without a single impression is a missing log"),
        _fact(
            "volume_is_usual",
            "volume_ratio",
            0.5,
            2.0,
            "half or twice the days before: something upstream may have changed",
            severity="warning",
        ),
        _fact(
            "volume_is_bearable",
            "volume_shortfall",
            None,
            0.0,
            "far fewer impressions than on the days before: part of the log is missing (OSMF_MIN_VOLUME_RATIO)",
        ),
    ),
    "bronze_clicks": (
        _unique(["source_date", "click_id"], "one click event of a day is one row"),
        _set("impression_id", "a click belongs to an impression"),
        *_EVENT_LEDGER,
        Expectation(
            "clicks_at_most_impressions",
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "num_impressions_read", "column_B": "num_read", "or_equal": True},
            "more clicks than impressions: the logs are mixed up, or impressions are missing",
            subject="facts",
        ),
    ),
    "quarantined_events": (
        _one_of("event_type", ("impression", "click"), "the two kinds of events"),
        _set("reasons", "nothing is refused without a reason"),
    ),
    "ingest_ledger": (
        _NOT_EMPTY,
        *_COUNTS,
        _one_of("outcome", ("kept", "deduplicated", "quarantined"), "the outcomes"),
    ),
    "users": (_NOT_EMPTY, _unique(["user_id"], "one row per user")),
    "products": (
        _NOT_EMPTY,
        _unique(["product_id"], "one row per product"),
        _set("scope", "groups are formed inside a scope"),
    ),
    "creatives": (
        _NOT_EMPTY,
        _unique(["creative_id"], "one row per creative"),
        _fact("products_are_known", "num_unknown_products", 0, 0, "a creative advertises a product that exists"),
    ),
    "product_splits": (
        _unique(["product_id"], "a product is in one split"),
        _one_of("split", SPLITS, "train, validation, test"),
        _fact("nothing_left_out", "num_products_missing", 0, 0, "each product is in some split"),
        _fact(
            "cutouts_are_readable",
            "unreadable_share",
            None,
            0.05,
            "the split goes by the cut-outs: a picture store that is away would move products from one to another",
        ),
    ),
    "product_masks": (
        _unique(["creative_id"], "one row per creative"),
        _one_of("mask_source", ("supplied", "alpha", "segmented", "none"), "where masks come from"),
        _between("mask_coverage", 0, 1, "a share of the picture"),
        _fact(
            "pictures_are_usable",
            "refused_share",
            None,
            0.05,
            "pictures or masks that cannot be used: their creatives serve no training",
            severity="warning",
        ),
    ),
    "creative_features": (
        _unique(["creative_id"], "one row per creative"),
        _fact("features_are_finite", "num_not_finite", 0, 0, "a feature that is not a number spoils a whole scope"),
        _between("mask_coverage", 0.01, 0.9, "a mask that covers nothing, or all, is no mask"),
    ),
    "silver_exposures": (
        _NOT_EMPTY,
        _unique(["event_date", "impression_id"], "one row per impression"),
        _set("cell", "an exposure belongs to a cell of users"),
        _balanced("impressions_balance", "num_impressions_read", "num_impressions_accounted", "no impression lost"),
        _balanced("clicks_balance", "num_clicks_read", "num_clicks_accounted", "no click lost or counted twice"),
        _balanced(
            "clicked_exposures_balance",
            "num_attributed_clicks",
            "num_clicked_exposures",
            "each attributed click is on its exposure, once",
        ),
        _fact(
            "clicks_find_their_impressions", "orphan_share", None, 0.05, "clicks without impressions: a log is missing"
        ),
        _fact(
            "clicks_follow_their_impressions",
            "before_impression_share",
            None,
            0.05,
            "clicks before their impressions: a clock or a time zone is wrong",
        ),
    ),
    "attribution_ledger": (_NOT_EMPTY, *_COUNTS),
    "creative_stats": (
        _NOT_EMPTY,
        _between("num_impressions", 1, None, "a row stands for exposures"),
        _at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
        _balanced("impressions_conserved", "num_impressions", "num_exposures", "sums equal the exposures behind them"),
        _balanced("clicks_conserved", "num_clicks", "num_clicked_exposures", "sums equal the clicks behind them"),
    ),
    "cell_users": (_NOT_EMPTY, _unique(["event_date", "scope", "cell", "user_id"], "a user counts once in a cell")),
    "user_groups": (
        _NOT_EMPTY,
        _unique(["scope", "cell"], "a cell belongs to one group"),
        _set("group_id", "a cell belongs to a group"),
    ),
    "group_lineage": (
        _unique(["group_id"], "one past per group"),
        _between("users_kept_share", 0, 1, "a share of users"),
    ),
    "group_features": (
        _NOT_EMPTY,
        _unique(["group_id"], "one row per group"),
        _fact(
            "groups_reach_the_floor", "num_below_floor", 0, 0, "no group smaller than the privacy floor is published"
        ),
        _fact("exemplars_are_training_products", "num_held_out_exemplars", 0, 0, "held-out products must stay unseen"),
        _at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
    ),
    "group_ctr": (
        _NOT_EMPTY,
        _unique(["group_id", "creative_id"], "one rate per group and creative"),
        _between("ctr_rate", 0, 1, "a rate"),
        _at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
        _at_least("ctr_rate_high", "ctr_rate_low", "an interval"),
    ),
    "preference_pairs": (
        _unique(["group_id", "chosen_creative_id", "rejected_creative_id"], "one row per pair"),
        _between("chosen_better_probability", 0.5, 1, "chosen is the one that is probably better"),
        _one_of("split", SPLITS, "train, validation, test"),
        _fact("no_pair_both_ways", "num_pairs_both_ways", 0, 0, "in one group a pair has one order"),
        _fact("pairs_probably_right", "expected_wrong_share", None, 0.1, "the pairs' own probabilities say they hold"),
    ),
    "truth_report": (
        _NOT_EMPTY,
        _unique(["scope", "measure", "probability_from"], "one row per scope, measure and bin"),
        _between("num_cases", 1, None, "a figure has cases behind it"),
        _fact("every_scope_is_judged", "num_scopes_missing", 0, 0, "scopes left out would flatter the figures"),
    ),
    "policy_values": (
        _unique(["scope", "users", "logged_arm", "policy", "compared_with", "estimator"], "one estimate of a value"),
        _one_of("estimator", ("on_policy", "ips", "snips", "dr"), "the estimators"),
        _set("value", "an estimate that is not a number says nothing"),
        _at_least("value_high", "value_low", "an interval"),
        _between("clipped_share", 0, 1, "a share of impressions"),
        _fact(
            "weights_average_to_one",
            "worst_mean_weight_excess",
            None,
            0.1,
            "weights far from 1 on average: propensities are wrong, or the logs never show what a policy would",
            severity="warning",
        ),
    ),
    "training_export": (
        _unique(["export_table"], "one row per exported table"),
        _fact("every_pair_exported", "num_pairs_missing", 0, 0, "a pair whose creatives have pictures is exported"),
        _fact("there_are_pairs", "num_training_pairs", 1, None, "without pairs there is nothing to align"),
    ),
    "pretrained_model": _MODEL_SUITE,
    "group_dpo_model": _MODEL_SUITE,
    "global_dpo_model": _MODEL_SUITE,
    "chosen_only_model": _MODEL_SUITE,
    "shuffled_dpo_model": _MODEL_SUITE,
    "group_reward_model": (
        *_MODEL_SUITE,
        _fact("better_than_a_coin", "test_pair_accuracy_low", 0.5, None, "on unseen products, 95%", severity="warning"),
    ),
    "evaluation_report": (
        _unique(["arm", "group_id"], "one row per arm and group"),
        _between("true_ctr_rate", 0, 1, "a rate"),
        _between("picture_quality", 0, 1, "a share of full quality"),
        _fact("every_arm_is_judged_alike", "num_arm_groups_missing", 0, 0, "arms are compared on the same groups"),
    ),
    "registered_model": (
        _NOT_EMPTY,
        _one_of("alias", ("champion", "challenger", "none"), "the two aliases, and none for what the gate refuses"),
        _fact("artifacts_are_intact", "num_artifacts_changed", 0, 0, "what is registered is what was evaluated"),
        _fact("the_gate_has_passed_it", "has_alias", 1, 1, "a model that is worse gets no alias", severity="warning"),
    ),
}
