"""The figures of an ablation, by hand: two groups, two products, known click rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from osmf_models.evaluation.kernel_distance import KernelTerms
from osmf_models.evaluation.resampling import RunKey
from osmf_pipelines.bench.ablation_figures import FIGURES, JudgedArm, JudgedMarket
from osmf_pipelines.bench.ablation_groups import ToldGroups
from osmf_pipelines.bench.ablation_plots import draw_ablation, draw_calibration
from osmf_pipelines.bench.ablation_report import ARM_KEYS, FORMAT, as_markdown, summarise, table_of

DOCS = Path(__file__).resolve().parents[2] / "docs" / "group_dpo.md"
DISTANCES = {"pretrained": 0.25, "group_dpo": 0.5, "global_dpo": 1.0}
CHANGES = {"pretrained": {}, "group_dpo": {}, "global_dpo": {"pair_groups": "null"}}
# Rates of groups g and h, the same on both products, so that intervals over products are points.
RATES = {
    "random": (0.03, 0.05),
    "oracle": (0.13, 0.15),
    "pretrained": (0.03, 0.05),
    "group_dpo": (0.08, 0.08),
    "global_dpo": (0.06, 0.04),
}


def judged_frame(arm: str, quality: float = 1.0, lift: float = 0.0) -> pd.DataFrame:
    rows = [
        (arm, "s", group, product, rate + lift, quality)
        for group, rate in zip("gh", RATES[arm], strict=True)
        for product in ("p", "q")
    ]
    return pd.DataFrame(rows, columns=["arm", "scope", "group_id", "product_id", "true_ctr_rate", "picture_quality"])


def judged_arm(arm: str, seed: int, right: float | None) -> JudgedArm:
    contradictions = (
        right if right is None else pd.DataFrame({"scope": "s", "product_id": ["p", "q"], "right_share": right})
    )
    bins = [] if right is None else [{"claimed_from": 0.5, "num_pairs": 4, "mean_claimed": 0.6, "mean_right": 0.7}]
    errors = {"validation/chosen_error_before": 0.5, "validation/chosen_error_after": 0.4}
    training = {"metrics": {} if right is None else errors, "wall_seconds": 60.0}
    figures = {"pair_accuracy": 0.75} if right is not None else {}
    quality = 0.9 if arm == "group_dpo" else 1.0
    return JudgedArm(
        RunKey("m", seed),
        arm,
        judged_frame(arm, quality),
        contradictions,
        bins,
        figures,
        training,
        terms(DISTANCES[arm]),
    )


def terms(distance: float) -> KernelTerms:
    return KernelTerms(("s", "s"), ("p", "q"), np.array([[0.0, distance], [distance, 0.0]]))


def judged_market(**told: tuple[str, ...]) -> JudgedMarket:
    judgements = pd.concat([judged_frame("random"), judged_frame("oracle")])
    return JudgedMarket(judgements, {"oracle": terms(0.75)}, ToldGroups(**told))


@pytest.fixture(scope="module")
def report() -> dict:
    rights = {"pretrained": None, "group_dpo": 1.0, "global_dpo": 0.5}
    judged = [judged_arm(arm, seed, right) for seed in (0, 1) for arm, right in rights.items()]
    baselines = {"m": judged_market(unseen_groups=("h",), agreeing_scopes=("s",))}
    settings = {"recipe": "demo", "seeds": [0, 1], "markets": [{"market": "m"}]}
    return summarise(judged, baselines, CHANGES, settings)


def arm_of(report: dict, name: str) -> dict:
    return next(arm for arm in report["arms"] if arm["arm"] == name)


def test_figures_by_hand(report: dict) -> None:
    own = arm_of(report, "group_dpo")
    assert report["format"] == FORMAT
    assert (own["mean_ctr"], own["worst_group_ctr"], own["picture_quality"]) == pytest.approx((0.08, 0.08, 0.9))
    assert own["headroom_share"] == pytest.approx((0.08 - 0.04) / (0.14 - 0.04))
    assert (own["lift_over_pretrained"], own["lift_over_pretrained_low"]) == pytest.approx((0.04, 0.04))
    assert (own["groups_lifted_share"], own["groups_lowered_share"]) == (1.0, 0.0)
    assert own["is_every_group_lifted"] is True
    assert own["contradiction_accuracy"] == 1.0
    assert own["chosen_error_change"] == pytest.approx(-0.2)
    assert (own["num_runs"], own["num_groups"], own["training_seconds"]) == (2, 2, 60.0)


def test_what_pictures_pay_is_told_beside_the_pretrained_model(report: dict) -> None:
    own = arm_of(report, "group_dpo")
    assert own["quality_over_pretrained"] == pytest.approx(-0.1)
    assert (own["kernel_distance"], own["kernel_distance_over_pretrained"]) == pytest.approx((0.5, 0.25))
    assert own["kernel_distance_over_pretrained_high"] == pytest.approx(0.25)
    assert arm_of(report, "oracle")["kernel_distance"] == 0.75
    assert arm_of(report, "random")["kernel_distance"] is None


def test_groups_are_told_of_on_their_own(report: dict) -> None:
    """Group h was held out, everyone agrees, and no category was held out."""
    own, one_size = arm_of(report, "group_dpo"), arm_of(report, "global_dpo")
    assert own["unseen_groups_lift_over_pretrained"] == pytest.approx(0.08 - 0.05)
    assert own["unseen_groups_lift_over_global"] == pytest.approx(0.08 - 0.04)
    assert own["lift_over_global"] == own["agreeing_scopes_lift_over_global"] == pytest.approx(0.03)
    assert one_size["unseen_groups_lift_over_pretrained"] == pytest.approx(-0.01)
    assert own["unseen_scope_lift_over_global"] is None
    header, _ = table_of(report)
    assert ("unseen groups over global" in header, "unseen category over global" in header) == (True, False)


def test_a_lowered_group_is_told(report: dict) -> None:
    one_size = arm_of(report, "global_dpo")
    assert (one_size["groups_lifted_share"], one_size["groups_lowered_share"]) == (0.5, 0.5)
    assert one_size["is_every_group_lifted"] is False
    assert one_size["lift_over_recipe"] == pytest.approx(-0.03)
    assert one_size["worst_group_over_recipe_high"] == pytest.approx(-0.04)
    assert one_size["contradiction_accuracy"] == 0.5


def test_a_seed_that_does_not_lift_widens_the_interval() -> None:
    judged = [judged_arm("pretrained", seed, None) for seed in (0, 1)] + [judged_arm("group_dpo", 0, 1.0)]
    weak = judged_arm("group_dpo", 1, 1.0)
    judged.append(JudgedArm(weak.run, weak.arm, judged_frame("group_dpo", lift=-0.06), None, [], {}, {}))
    baselines = {"m": judged_market()}
    own = arm_of(summarise(judged, baselines, {"pretrained": {}, "group_dpo": {}}, {}), "group_dpo")
    assert own["lift_over_pretrained"] == pytest.approx(0.01)
    assert own["lift_over_pretrained_low"] < 0.0 < own["lift_over_pretrained_high"]
    assert own["groups_lifted_share"] == 0.0


def test_arms_without_a_model_are_told_beside_the_others(report: dict) -> None:
    assert [arm["arm"] for arm in report["arms"]] == [*CHANGES, "random", "oracle"]
    oracle = arm_of(report, "oracle")
    assert oracle["headroom_share"] == pytest.approx(1.0)
    assert (oracle["num_runs"], oracle["contradiction_accuracy"], oracle["training_seconds"]) == (0, None, None)


def test_groups_and_bins_are_rows_of_their_own(report: dict) -> None:
    lowered = [row for row in report["groups"] if row["is_lowered"]]
    assert [(row["arm"], row["group_id"]) for row in lowered] == [("global_dpo", "h")]
    assert len(report["groups"]) == 4
    assert len(report["calibration"]) == 4
    assert {row["arm"] for row in report["calibration"]} == {"group_dpo", "global_dpo"}


def test_every_key_is_in_the_documentation(report: dict) -> None:
    text = DOCS.read_text()
    keys = {*ARM_KEYS, *FIGURES, *(f"{name}_{end}" for name in FIGURES for end in ("low", "high"))}
    assert set(report["arms"][0]) == keys
    named = [*ARM_KEYS, *FIGURES, *report["groups"][0], *report["calibration"][0]]
    assert [key for key in named if f"`{key}`" not in text] == []


def test_table_and_plots_are_drawn(report: dict, tmp_path: Path) -> None:
    header, rows = table_of(report)
    assert all(len(row) == len(header) for row in rows)
    lines = as_markdown(report).splitlines()
    assert "| global dpo | pair_groups=null | 5.00% (5.00% to 5.00%)" in lines[6]
    draw_ablation(report, tmp_path / "a.png")
    draw_calibration(report, tmp_path / "c.png")
    for name in ("a.png", "c.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
