"""From the comparisons of `osmf bench pair-quality` to its JSON report and its plot.

Keys of the report are documented in docs/grouping.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_pipelines.bench.comparisons import PROBABILITY_BINS, bin_of, is_kept

mpl.use("Agg")
from matplotlib import pyplot as plt

FORMAT = "osmf-bench-pair-quality/1"
_NUM_BOOTSTRAPS = 400
_MIN_BIAS = 0.1
_MIN_DRAWN = 1_000
_LINES = ("-", "--", ":", "-.")
_OF = ["market", "condition"]
_PRODUCT = ["seed", "scope", "product"]  # at every level of impressions, since more of them are the same and more


def summarise(
    comparisons: pd.DataFrame,
    intervals: pd.DataFrame,
    bias: pd.DataFrame,
    min_probability: float,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Returns the report; the three frames are those of `pair_quality.CaseFrames`, of all cases.

    Args:
        comparisons: of all creatives.
        intervals: how many of them hold the truth.
        bias: of positions.
        min_probability: pairs are kept from here on.
        settings: what was run.
    """
    comparisons = comparisons.assign(is_kept=is_kept(comparisons, min_probability))
    parts = list(comparisons.groupby(_OF))
    return {
        "format": FORMAT,
        "settings": {**settings, "min_probability": min_probability},
        "calibration": [dict(zip(_OF, keys, strict=True)) | row for keys, part in parts for row in calibrate(part)],
        "kept": [dict(zip(_OF, keys, strict=True)) | judge_kept(part) for keys, part in parts],
        "caig": [dict(zip(_OF, keys, strict=True)) | compare_with_caig(part) for keys, part in parts],
        "recall": _recall(comparisons),
        "coverage": _coverage(intervals),
        "position_bias": _position_bias(bias),
    }


def calibrate(comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns claimed and true share of right pairs by bin of probability, with an interval by products."""
    found = []
    for place, part in comparisons.groupby(bin_of(comparisons)):
        gap = part.assign(gap=part.is_right - part.probability)
        low, high = bootstrap_mean(gap, "gap")
        row = {
            "probability_from": PROBABILITY_BINS[place],
            "probability_to": PROBABILITY_BINS[place + 1],
            "num_pairs": len(part),
            "claimed": float(part.probability.mean()),
            "right": float(part.is_right.mean()),
            "gap_low": low,
            "gap_high": high,
            "gap_by_seed": _by_seed(gap, "gap"),
        }
        found.append(row)
    return found


def judge_kept(comparisons: pd.DataFrame) -> dict[str, Any]:
    """Returns how many pairs are kept, and the share of wrong ones: expected and true."""
    kept = comparisons[comparisons.is_kept]
    wrong = kept.assign(gap=(1 - kept.probability) - ~kept.is_right)
    low, high = bootstrap_mean(wrong, "gap") if len(kept) else (None, None)
    return {
        "num_pairs": len(kept),
        "num_insufficient": int((~comparisons.is_kept).sum()),
        "expected_wrong_share": float((1 - kept.probability).mean()) if len(kept) else None,
        "wrong_share": float((~kept.is_right).mean()) if len(kept) else None,
        "gap_low": low,
        "gap_high": high,
        "gap_by_seed": _by_seed(wrong, "gap"),
    }


def compare_with_caig(comparisons: pd.DataFrame) -> dict[str, Any]:
    """Returns the share of wrong pairs that CAIG's filter keeps, and of as many of the most probable pairs.

    As many at each level of impressions. `caig_expected_wrong_share` is what our probabilities say of the pairs that
    its filter keeps, ordered by their click-through rates.
    """
    caig = comparisons[comparisons.is_caig_pair]
    if caig.empty:
        return dict.fromkeys(("caig_wrong_share", "caig_expected_wrong_share", "wrong_share")) | {"num_pairs": 0}
    levels = comparisons.groupby("impressions_per_arm")
    ours = pd.concat([part.nlargest(int(part.is_caig_pair.sum()), "probability") for _, part in levels])
    is_same_order = caig.is_caig_right == caig.is_right
    return {
        "num_pairs": len(caig),
        "caig_wrong_share": float((~caig.is_caig_right).mean()),
        "caig_expected_wrong_share": float(np.where(is_same_order, 1 - caig.probability, caig.probability).mean()),
        "wrong_share": float((~ours.is_right).mean()),
    }


def bootstrap_mean(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Returns the 95% interval of a mean over rows, by drawing products anew."""
    sums = rows.groupby(_PRODUCT)[column].agg(["sum", "size"]).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(sums), (_NUM_BOOTSTRAPS, len(sums)))
    totals = sums[picks].sum(axis=1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)


def _by_seed(rows: pd.DataFrame, column: str) -> list[float]:
    """Means of a column in each seed that has rows, in their order."""
    return [float(mean) for mean in rows.groupby("seed")[column].mean()]


def _recall(comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    """Share of all comparisons that are kept and right, by impressions of a creative in a segment."""
    found = []
    for keys, part in comparisons.groupby([*_OF, "impressions_per_arm"]):
        told = dict(zip((*_OF, "impressions_per_arm"), keys, strict=True))
        right = float((part.is_kept & part.is_right).mean())
        found.append({**told, "num_comparisons": len(part), "kept_and_right_share": right})
    return found


def _coverage(intervals: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for keys, part in intervals.groupby([*_OF, "what"]):
        num_cases, num_covered = int(part.num_cases.sum()), int(part.num_covered.sum())
        sums = part.groupby("seed")[["num_covered", "num_cases"]].sum()
        told = {
            "num_cases": num_cases,
            "covered_share": num_covered / num_cases,
            "covered_share_by_seed": (sums.num_covered / sums.num_cases).tolist(),
        }
        found.append({**dict(zip((*_OF, "what"), keys, strict=True)), **told})
    return found


def _position_bias(bias: pd.DataFrame) -> list[dict[str, Any]]:
    """Log gain of high places over low ones, by scope, and the share of it that the correction takes away.

    `share_removed` is None where there is next to nothing to take away.
    """
    found = []
    for keys, part in bias.groupby(_OF):
        raw, corrected = float(part.without.mean()), float(part.with_correction.mean())
        told = {
            "num_scopes": len(part),
            "log_bias": raw,
            "log_bias_corrected": corrected,
            "log_bias_corrected_spread": float(part.with_correction.std()),
            "share_removed": 1 - abs(corrected / raw) if abs(raw) > _MIN_BIAS else None,
        }
        found.append({**dict(zip(_OF, keys, strict=True)), **told})
    return found


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws calibration, recall and the share of wrong pairs beside CAIG's; colours are conditions, lines markets."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 5.2), layout="constrained", width_ratios=(1, 1, 1.15))
    calibration, recall = pd.DataFrame(report["calibration"]), pd.DataFrame(report["recall"])
    conditions, markets = sorted(recall.condition.unique()), sorted(recall.market.unique())
    looks = {
        (market, condition): {"color": f"C{conditions.index(condition)}", "ls": _LINES[markets.index(market) % 4]}
        for market in markets
        for condition in conditions
    }
    axes[0].axhspan(-0.01, 0.01, color="#e6e6e6", lw=0)
    axes[0].axhline(0.0, color="black", lw=0.6)
    for keys, part in calibration[calibration.num_pairs >= _MIN_DRAWN].groupby(_OF):
        axes[0].plot(part.claimed, part.right - part.claimed, marker="o", ms=3, lw=1, **looks[keys])
    axes[0].set(xlabel="probability claimed", ylabel="share of right pairs, less the claim")
    axes[0].set_title("Do probabilities hold? Grey: within 0.01", fontsize=10)
    for keys, part in recall.groupby(_OF):
        axes[1].plot(part.impressions_per_arm, part.kept_and_right_share, marker="o", ms=3, lw=1, **looks[keys])
    axes[1].set(xscale="log", xlabel="impressions of a creative in a segment", ylabel="share of all comparisons")
    levels = sorted(recall.impressions_per_arm.unique())
    axes[1].set_xticks(levels, [f"{level:,}" for level in levels])
    axes[1].minorticks_off()
    axes[1].set_title("Preferences kept, and right", fontsize=10)
    _plot_caig(axes[2], pd.DataFrame(report["caig"]).dropna(subset="wrong_share"))
    handles = [axes[1].plot([], [], color=f"C{n}", label=name)[0] for n, name in enumerate(conditions)]
    handles += [axes[1].plot([], [], color="black", ls=_LINES[n % 4], label=name)[0] for n, name in enumerate(markets)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_caig(axes: Any, caig: pd.DataFrame) -> None:
    axes.set_title("Wrong pairs among as many", fontsize=10)
    if caig.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "CAIG's filter keeps no pair", ha="center", transform=axes.transAxes)
        return
    places: NDArray[np.float64] = np.arange(len(caig), dtype=float)[::-1]
    axes.barh(places + 0.2, caig.caig_wrong_share, 0.4, color="#7a7a7a", label="CAIG's filter")
    axes.barh(places - 0.2, caig.wrong_share, 0.4, color="#1b6ca8", label="the most probable")
    axes.set_yticks(places, [f"{row.market}, {row.condition}" for row in caig.itertuples()], fontsize=7)
    axes.set_xlabel("share of them")
    axes.legend(fontsize=7, ncols=2, loc="lower right", bbox_to_anchor=(1, -0.17), frameon=False)
