"""What must hold of each table before it is published, with the reason and how grave a breach is.

Plain data: Great Expectations is imported in `gate.py` alone. "Facts" are numbers that an asset counted on the way
(the ledger, what was left out), checked beside the rows.
"""

from __future__ import annotations

from dataclasses import replace

from osmf_models.records import SPLITS
from osmf_pipelines.quality.expectations import (
    NOT_EMPTY,
    Expectation,
    at_least,
    balanced,
    between,
    fact,
    is_set,
    one_of,
    unique,
)

_EVENT_LEDGER = (
    balanced("ledger_balances", "num_read", "num_accounted", "read = kept + deduplicated + quarantined, no event lost"),
    fact(
        "quarantine_is_small",
        "quarantined_share",
        None,
        0.01,
        "more than 1% of bad rows means that something upstream has changed",
        severity="warning",
    ),
    fact(
        "quarantine_is_bearable",
        "quarantine_excess",
        None,
        0.0,
        "so many bad rows above OSMF_MAX_QUARANTINED_SHARE that the rest of the day is not trusted",
    ),
)

_COUNTS = (
    unique(["source_date", "event_type", "outcome"], "one number per day, kind of event and outcome"),
    between("num_events", 0, None, "a number of events"),
)

_MODEL_SUITE = (
    unique(["as_of_date", "metric"], "one value per metric"),
    fact("metrics_are_finite", "num_not_finite", 0, 0, "a metric that is not a number means that training failed"),
    fact("training_finished", "num_steps_missing", 0, 0, "the run took every step of its recipe"),
    fact("artifacts_are_intact", "num_artifacts_changed", 0, 0, "the model's files are those that the run wrote"),
)

_PICTURES = "what it draws is further from the logged pictures than anything that is shown (OSMF_MAX_SCENE_DISTANCE)"
_PICTURES_ARE_SOUND = fact("pictures_are_sound", "scene_distance_excess", None, 0.0, _PICTURES)
# A control that breaks its pictures is a result.
_CONTROL_SUITE = (*_MODEL_SUITE, replace(_PICTURES_ARE_SOUND, severity="warning"))

SUITES: dict[str, tuple[Expectation, ...]] = {
    "bronze_impressions": (
        NOT_EMPTY,
        unique(["source_date", "impression_id"], "one showing of a day is one row"),
        is_set("user_id", "an impression without a user cannot be grouped"),
        is_set("creative_id", "an impression without a creative teaches nothing"),
        between("position", 1, 1000, "positions count from 1"),
        between("propensity", 0, 1, "a probability", strict_min=True),
        *_EVENT_LEDGER,
        fact("every_day_has_impressions", "num_read", 1, None, "a day without a single impression is a missing log"),
        fact(
            "volume_is_usual",
            "volume_ratio",
            0.5,
            2.0,
            "half or twice the days before: something upstream may have changed",
            severity="warning",
        ),
        fact(
            "volume_is_bearable",
            "volume_shortfall",
            None,
            0.0,
            "far fewer impressions than on the days before: part of the log is missing (OSMF_MIN_VOLUME_RATIO)",
        ),
    ),
    "bronze_clicks": (
        unique(["source_date", "click_id"], "one click event of a day is one row"),
        is_set("impression_id", "a click belongs to an impression"),
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
        one_of("event_type", ("impression", "click"), "the two kinds of events"),
        is_set("reasons", "nothing is refused without a reason"),
    ),
    "ingest_ledger": (
        NOT_EMPTY,
        *_COUNTS,
        one_of("outcome", ("kept", "deduplicated", "quarantined"), "the outcomes"),
    ),
    "users": (NOT_EMPTY, unique(["user_id"], "one row per user")),
    "products": (
        NOT_EMPTY,
        unique(["product_id"], "one row per product"),
        is_set("scope", "groups are formed inside a scope"),
    ),
    "creatives": (
        NOT_EMPTY,
        unique(["creative_id"], "one row per creative"),
        fact("products_are_known", "num_unknown_products", 0, 0, "a creative advertises a product that exists"),
    ),
    "product_splits": (
        unique(["product_id"], "a product is in one split"),
        one_of("split", SPLITS, "train, validation, test"),
        fact("nothing_left_out", "num_products_missing", 0, 0, "each product is in some split"),
        fact(
            "cutouts_are_readable",
            "unreadable_share",
            None,
            0.05,
            "the split goes by the cut-outs: a picture store that is away would move products from one to another",
        ),
    ),
    "product_masks": (
        unique(["creative_id"], "one row per creative"),
        one_of("mask_source", ("supplied", "alpha", "segmented", "none"), "where masks come from"),
        between("mask_coverage", 0, 1, "a share of the picture"),
        fact(
            "pictures_are_usable",
            "refused_share",
            None,
            0.05,
            "pictures or masks that cannot be used: their creatives serve no training",
            severity="warning",
        ),
    ),
    "creative_features": (
        unique(["creative_id"], "one row per creative"),
        fact("features_are_finite", "num_not_finite", 0, 0, "a feature that is not a number spoils a whole scope"),
        between("mask_coverage", 0.01, 0.9, "a mask that covers nothing, or all, is no mask"),
    ),
    "silver_exposures": (
        NOT_EMPTY,
        unique(["event_date", "impression_id"], "one row per impression"),
        is_set("cell", "an exposure belongs to a cell of users"),
        balanced("impressions_balance", "num_impressions_read", "num_impressions_accounted", "no impression lost"),
        balanced("clicks_balance", "num_clicks_read", "num_clicks_accounted", "no click lost or counted twice"),
        balanced(
            "clicked_exposures_balance",
            "num_attributed_clicks",
            "num_clicked_exposures",
            "each attributed click is on its exposure, once",
        ),
        fact(
            "clicks_find_their_impressions", "orphan_share", None, 0.05, "clicks without impressions: a log is missing"
        ),
        fact(
            "clicks_follow_their_impressions",
            "before_impression_share",
            None,
            0.05,
            "clicks before their impressions: a clock or a time zone is wrong",
        ),
    ),
    "attribution_ledger": (NOT_EMPTY, *_COUNTS),
    "creative_stats": (
        NOT_EMPTY,
        between("num_impressions", 1, None, "a row stands for exposures"),
        at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
        balanced("impressions_conserved", "num_impressions", "num_exposures", "sums equal the exposures behind them"),
        balanced("clicks_conserved", "num_clicks", "num_clicked_exposures", "sums equal the clicks behind them"),
        fact("every_day_has_evidence", "num_exposures", 1, None, "what models drew alone says nothing of own pictures"),
    ),
    "cell_users": (NOT_EMPTY, unique(["event_date", "scope", "cell", "user_id"], "a user counts once in a cell")),
    "user_groups": (
        NOT_EMPTY,
        unique(["scope", "cell"], "a cell belongs to one group"),
        is_set("group_id", "a cell belongs to a group"),
    ),
    "group_lineage": (
        unique(["group_id"], "one past per group"),
        between("users_kept_share", 0, 1, "a share of users"),
    ),
    "group_features": (
        NOT_EMPTY,
        unique(["group_id"], "one row per group"),
        fact("groups_reach_the_floor", "num_below_floor", 0, 0, "no group smaller than the privacy floor is published"),
        fact("exemplars_are_training_products", "num_held_out_exemplars", 0, 0, "held-out products must stay unseen"),
        at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
    ),
    "group_ctr": (
        NOT_EMPTY,
        unique(["group_id", "creative_id"], "one rate per group and creative"),
        between("ctr_rate", 0, 1, "a rate"),
        at_least("num_impressions", "num_clicks", "an exposure is clicked once at most"),
        at_least("ctr_rate_high", "ctr_rate_low", "an interval"),
    ),
    "preference_pairs": (
        unique(["group_id", "chosen_creative_id", "rejected_creative_id"], "one row per pair"),
        between("chosen_better_probability", 0.5, 1, "chosen is the one that is probably better"),
        one_of("split", SPLITS, "train, validation, test"),
        fact("no_pair_both_ways", "num_pairs_both_ways", 0, 0, "in one group a pair has one order"),
        fact("pairs_probably_right", "expected_wrong_share", None, 0.1, "the pairs' own probabilities say they hold"),
    ),
    "truth_report": (
        NOT_EMPTY,
        unique(["scope", "measure", "probability_from"], "one row per scope, measure and bin"),
        between("num_cases", 1, None, "a figure has cases behind it"),
        fact("every_scope_is_judged", "num_scopes_missing", 0, 0, "scopes left out would flatter the figures"),
    ),
    "policy_values": (
        unique(["scope", "users", "logged_arm", "policy", "compared_with", "estimator"], "one estimate of a value"),
        one_of("estimator", ("on_policy", "ips", "snips", "dr"), "the estimators"),
        is_set("value", "an estimate that is not a number says nothing"),
        at_least("value_high", "value_low", "an interval"),
        between("clipped_share", 0, 1, "a share of impressions"),
        fact(
            "weights_average_to_one",
            "worst_mean_weight_excess",
            None,
            0.1,
            "weights far from 1 on average: propensities are wrong, or the logs never show what a policy would",
            severity="warning",
        ),
    ),
    "training_export": (
        unique(["export_table"], "one row per exported table"),
        fact("every_pair_exported", "num_pairs_missing", 0, 0, "a pair whose creatives have pictures is exported"),
        fact("there_are_pairs", "num_training_pairs", 1, None, "without pairs there is nothing to align"),
    ),
    "pretrained_model": (*_MODEL_SUITE, _PICTURES_ARE_SOUND),
    "group_dpo_model": (*_MODEL_SUITE, _PICTURES_ARE_SOUND),
    "global_dpo_model": _CONTROL_SUITE,
    "chosen_only_model": _CONTROL_SUITE,
    "shuffled_dpo_model": _CONTROL_SUITE,
    "group_reward_model": (
        *_MODEL_SUITE,
        fact("better_than_a_coin", "test_pair_accuracy_low", 0.5, None, "on unseen products, 95%", severity="warning"),
    ),
    "evaluation_report": (
        unique(["arm", "group_id"], "one row per arm and group"),
        between("true_ctr_rate", 0, 1, "a rate"),
        between("picture_quality", 0, 1, "a share of full quality"),
        between("product_fidelity", 0, 1, "a share of untouched pixels"),
        fact("every_arm_is_judged_alike", "num_arm_groups_missing", 0, 0, "arms are compared on the same groups"),
    ),
    "registered_model": (
        NOT_EMPTY,
        one_of("alias", ("champion", "challenger", "none"), "the two aliases, and none for what the gate refuses"),
        fact("artifacts_are_intact", "num_artifacts_changed", 0, 0, "what is registered is what was evaluated"),
        fact("the_gate_has_passed_it", "has_alias", 1, 1, "a model that is worse gets no alias", severity="warning"),
    ),
    "generated_creatives": (
        NOT_EMPTY,
        unique(["group_id", "product_id"], "one picture per group and product"),
        between("scene_distance", 0, None, "a distance"),
        between("clipped_share", 0, 1, "a share of colour values"),
        fact(
            "every_ask_is_answered", "num_missing", 0, 0, "each picture asked for was drawn, or refused with a reason"
        ),
        fact("artifacts_are_intact", "num_artifacts_changed", 0, 0, "the record is the one that the run wrote"),
        fact("few_are_refused", "refused_share", None, 0.1, "a model that often breaks pictures", severity="warning"),
        fact("most_are_fit_to_be_shown", "refused_share", None, 0.5, "a model that breaks most pictures is not served"),
    ),
    "serving_map": (
        NOT_EMPTY,
        one_of("entry", ("rule", "picture"), "the two kinds of entries"),
        is_set("group_id", "rules lead to groups, and groups to pictures"),
        fact("one_answer_to_each_question", "num_ambiguous", 0, 0, "a user has one group, and a group one picture"),
        fact("nobody_is_left_out", "num_scopes_without_root", 0, 0, "who is in no cell is in the scope's root"),
        fact("there_are_pictures", "num_pictures", 1, None, "without pictures there is nothing to serve"),
        fact("pictures_are_in_place", "num_files_missing", 0, 0, "a picture that is gone cannot be shown"),
        fact(
            "every_product_has_a_picture",
            "num_unserved",
            0,
            0,
            "some were refused, and so was the scope root's",
            severity="warning",
        ),
    ),
}
