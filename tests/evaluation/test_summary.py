from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from osmf_models.evaluation.summary import JUDGEMENT_COLUMNS, by_group, group_figures, paired_difference, summarise


def judged(rates: dict[str, dict[tuple[str, str], float]]) -> pd.DataFrame:
    rows = [
        (arm, "s", group, product, 2, rate, 1.0, np.nan)
        for arm, cases in rates.items()
        for (group, product), rate in cases.items()
    ]
    return pd.DataFrame(rows, columns=list(JUDGEMENT_COLUMNS))


CASES = [("g1", "p1"), ("g1", "p2"), ("g2", "p1"), ("g2", "p2")]


def arm(*rates: float) -> dict[tuple[str, str], float]:
    return dict(zip(CASES, rates, strict=True))


def test_figures_by_hand():
    judgements = judged(
        {
            "random": arm(0.04, 0.06, 0.02, 0.04),
            "pretrained": arm(0.04, 0.06, 0.03, 0.05),
            "group_dpo": arm(0.08, 0.10, 0.03, 0.03),
            "oracle": arm(0.14, 0.16, 0.12, 0.14),
        }
    )
    metrics = summarise(judgements, ["pretrained", "group_dpo"])
    assert metrics["random/mean_ctr"] == pytest.approx(0.04)
    assert metrics["group_dpo/mean_ctr"] == pytest.approx(0.06)
    assert metrics["group_dpo/worst_group_ctr"] == pytest.approx(0.03)
    assert metrics["group_dpo/share_of_headroom"] == pytest.approx(0.2)
    assert metrics["oracle/share_of_headroom"] == pytest.approx(1.0)
    assert metrics["group_dpo/share_of_groups_above_pretrained"] == 0.5
    assert metrics["group_dpo_minus_pretrained/mean_ctr"] == pytest.approx(0.015)
    groups = by_group(judgements)
    assert groups[(groups.arm == "random") & (groups.group_id == "g1")].num_pictures.item() == 4


def test_intervals_of_arms_by_hand():
    """Both products of group g1 say the same; those of g2 differ by 2 points: drawn twice, 1 point either way, √2."""
    judgements = judged(
        {
            "random": arm(0.02, 0.02, 0.02, 0.02),
            "group_dpo": arm(0.05, 0.05, 0.03, 0.05),
            "oracle": arm(0.10, 0.10, 0.10, 0.10),
        }
    ).assign(product_fidelity=0.5)
    ends = 0.01 * np.sqrt(2.0) * np.array([-1.0, 1.0])
    rows = group_figures(judgements).set_index(["arm", "group_id"])
    told = rows.loc[("group_dpo", "g1"), ["true_ctr_low", "true_ctr_high"]].to_numpy(float)
    np.testing.assert_allclose(told, 0.05)
    told = rows.loc[("group_dpo", "g2"), ["true_ctr_low", "true_ctr_high"]].to_numpy(float)
    np.testing.assert_allclose(told, 0.04 + ends)
    metrics = summarise(judgements, ["group_dpo"])
    names = ("mean_ctr", "worst_group_ctr", "share_of_headroom")
    found = [[metrics[f"group_dpo/{name}_{end}"] for end in ("low", "high")] for name in names]
    expected = [0.045 + ends / 2, [0.04 + ends[0], 0.05], (0.025 + ends / 2) / 0.08]
    np.testing.assert_allclose(found, expected)
    assert metrics["oracle/share_of_headroom_low"] == pytest.approx(1.0)


def test_what_is_not_known_is_missing():
    judgements = judged({"random": arm(*[np.nan] * 4), "group_dpo": arm(*[np.nan] * 4)})
    lifts = pd.DataFrame([("group_dpo", "s", "g1", 0.2)], columns=["arm", "scope", "group_id", "predicted_log_lift"])
    rows = group_figures(judgements.assign(product_fidelity=1.0), lifts).set_index(["arm", "group_id"])
    assert rows[["true_ctr_rate", "true_ctr_low", "true_ctr_high"]].isna().all(axis=None)
    assert rows.predicted_log_lift.loc[("group_dpo", "g1")] == 0.2
    assert rows.predicted_log_lift.isna().sum() == 3


def test_an_interval_is_a_point_when_every_product_says_the_same():
    judgements = judged({"a": arm(0.05, 0.06, 0.05, 0.06), "b": arm(0.04, 0.05, 0.04, 0.05)})
    assert paired_difference(judgements, "a", "b") == pytest.approx((0.01, 0.01, 0.01))


def test_the_interval_of_two_products_spans_them_both():
    judgements = judged({"a": arm(0.02, 0.06, 0.02, 0.06), "b": arm(0.0, 0.0, 0.0, 0.0)})
    difference, low, high = paired_difference(judgements, "a", "b")
    # Means of two drawn are 0.02, 0.04 or 0.06; their spread is stretched by the root of 2 / 1.
    assert (difference, low, high) == pytest.approx((0.04, 0.04 - 0.02 * 2**0.5, 0.04 + 0.02 * 2**0.5))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        noise = rng.normal(0.01, 0.02, 12)
        cases = [("g", f"p{number}") for number in range(12)]
        judgements = judged({"a": dict(zip(cases, noise, strict=True)), "b": dict.fromkeys(cases, 0.0)})
        _, low, high = paired_difference(judgements, "a", "b")
        covered += low < 0.01 < high
    assert 50 <= covered <= 60
