"""How right preference pairs are: simulated clicks, the pairs that a refresh would keep, and the truth beside each.

Rates and probabilities come from the very functions of a refresh. What is made of the comparisons belongs in
`pair_quality_report.py`, the counts in `market_counts.py`.

Shapes: `C` creatives of a scope, `G` groups, `d` features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from osmf_models.simulator.events import open_shop
from osmf_models.simulator.market import Market
from osmf_models.simulator.serving import UNIFORM, Policy
from osmf_pipelines.bench.grouping import CONDITIONS, MARKETS, START, Condition
from osmf_pipelines.bench.grouping_score import PlantedScope
from osmf_pipelines.bench.market_counts import MarketCounts, count_market
from osmf_pipelines.spark.ctr import rate_scope
from osmf_pipelines.spark.pairs import better_probability
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.preference_model import design_creatives, fit_preference
from osmf_pipelines.spark.scope_groups import form_scope_groups

CAIG_MIN_IMPRESSIONS, CAIG_RATIO = 1_000, (1.05, 1.20)
Array = NDArray[np.float64]


PAIR_CONDITIONS = {
    **CONDITIONS,
    "biased positions": Condition(Policy(position_bias=0.8)),
    "subtle": Condition(UNIFORM, taste_scale=0.3),
}


@dataclass(frozen=True)
class PairCase:
    """One simulated market.

    Attributes:
        market: its name.
        condition: name of one of `PAIR_CONDITIONS`.
        seed: of the market.
        impressions_per_arm: of a creative in one of a scope's segments, about.
    """

    market: str
    condition: str
    seed: int
    impressions_per_arm: int

    def count(self) -> MarketCounts:
        """Returns the counts of one day."""
        condition = PAIR_CONDITIONS[self.condition]
        market = MARKETS[self.market].make(self.seed)
        population = replace(market.population, activity=condition.activity)
        market = replace(_with_scaled_tastes(market, condition.taste_scale), population=population)
        num_creatives = len(market.products) * market.num_creatives_per_product
        num_segments = np.mean([len(scope.segments) for scope in market.scopes])
        per_day = round(self.impressions_per_arm * num_creatives * float(num_segments))
        shop, encoder = open_shop(market, self.seed, START, per_day), MARKETS[self.market].encoder
        return count_market(shop, condition.policy, 1, encoder)


@dataclass(frozen=True)
class CaseFrames:
    """What was found in one case; each frame has the case's fields, the scope and its kind as columns.

    Attributes:
        comparisons: columns as `compare`, and num_groups.
        intervals: what (group_ctr or preference), num_cases, num_covered.
        bias: with_correction, without.
    """

    comparisons: pd.DataFrame
    intervals: pd.DataFrame
    bias: pd.DataFrame

    def packed(self) -> dict[str, bytes]:
        """Returns the frames as Arrow streams."""
        return {field.name: _as_stream(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def unpacked(cls, streams: dict[str, bytes]) -> CaseFrames:
        """Returns the frames of `packed`."""
        return cls(**{name: pa.ipc.open_stream(bytes(stream)).read_pandas() for name, stream in streams.items()})


def judge_case(case: PairCase, settings: TreeSettings) -> CaseFrames:
    """Returns the comparisons of all creatives in all groups, coverage of intervals, and the bias of positions."""
    counts = case.count()
    effects = counts.place_effects
    comparisons, intervals, bias = [], [], []
    for place, scope in enumerate(counts.shop.market.scopes):
        planted = PlantedScope.of(counts, place)
        rows, features = counts.of_scope(place, effects), counts.features_of_scope(place)
        formed = form_scope_groups(rows, features, settings, "adaptive")
        groups = formed[~formed["is_scope_root"]]
        rated = _rated(planted, rows, groups)
        told = {**vars(case), "scope": scope.name, "kind": scope.kind}
        comparisons.append(compare(rated).assign(**told, num_groups=len(groups)))
        covered = {
            "group_ctr": covered_rates(rated),
            "preference": _preferences_covered(planted, rows, features, groups),
        }
        intervals += [
            {**told, "what": what, "num_cases": n, "num_covered": hits} for what, (n, hits) in covered.items()
        ]
        bias.append({**told, **_position_bias(planted, counts, place, effects)})
    return CaseFrames(pd.concat(comparisons, ignore_index=True), pd.DataFrame(intervals), pd.DataFrame(bias))


def compare(rated: pd.DataFrame) -> pd.DataFrame:
    """Returns every two creatives of a product in a group, as a refresh compares them, beside the truth.

    Args:
        rated: rows of `group_ctr` without scope roots, with the true rate of each creative in its group.
    """
    keys = ["group_id", "product_id"]
    columns = [*keys, "creative_id", "posterior_shape", "posterior_rate", "num_impressions", "num_clicks", "true_rate"]
    both = rated[columns].merge(rated[columns], on=keys, suffixes=("", "_2"))
    both = both[both["creative_id"] < both["creative_id_2"]].reset_index(drop=True)
    gammas = [
        both[name].to_numpy() for name in ("posterior_shape", "posterior_rate", "posterior_shape_2", "posterior_rate_2")
    ]
    first_better = better_probability(*gammas)
    sign = np.where(first_better >= 0.5, 1.0, -1.0)
    log_ratio = np.log(gammas[0] / gammas[1]) - np.log(gammas[2] / gammas[3])
    true_log_ratio = np.log(both["true_rate"] / both["true_rate_2"]).to_numpy()
    ratio = _click_ratio(both)
    return pd.DataFrame(
        {
            "product": both["product_id"],
            "probability": np.maximum(first_better, 1 - first_better),
            "is_right": sign * true_log_ratio > 0,
            "log_rate_ratio": sign * log_ratio,
            "true_log_ratio": sign * true_log_ratio,
            "is_caig_pair": _is_caig_pair(both, ratio),
            "is_caig_right": (ratio > 1) == (true_log_ratio > 0),
        }
    )


def is_kept(comparisons: pd.DataFrame, min_probability: float) -> pd.Series:
    """Returns which comparisons become pairs, rows as of `compare`."""
    return (comparisons["probability"] >= min_probability) & (comparisons["log_rate_ratio"] > 0)


def _click_ratio(both: pd.DataFrame) -> Array:
    """Raw click-through rate of the first over that of the second; NaN without clicks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (both[f"num_clicks{n}"] / both[f"num_impressions{n}"] for n in ("", "_2"))
        return (first / second).to_numpy()


def _is_caig_pair(both: pd.DataFrame, ratio: Array) -> NDArray[np.bool_]:
    """Whether CAIG's filter keeps the pair: both shown more than 1,000 times, click rates 1.05 to 1.20 apart."""
    shown = np.minimum(both["num_impressions"], both["num_impressions_2"]).to_numpy()
    with np.errstate(divide="ignore"):
        apart = np.maximum(ratio, 1 / ratio)
    return (shown > CAIG_MIN_IMPRESSIONS) & (apart >= CAIG_RATIO[0]) & (apart <= CAIG_RATIO[1])


def _rated(planted: PlantedScope, rows: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Rows of `group_ctr` of the groups, with the true rate: the mean over a group's cells, weighted by impressions."""
    group_of = _group_of_cell(groups)
    inside = rows.assign(group_id=rows["cell"].map(group_of)).dropna(subset=["group_id"])
    names = ["num_impressions", "num_clicks", "effective_millis"]
    keys = ["scope", "group_id", "product_id", "creative_id", "is_fitted"]
    rated = rate_scope(inside.groupby(keys, as_index=False)[names].sum())
    return with_true_rates(planted, inside, rated[~rated["is_scope_root"]])


def with_true_rates(planted: PlantedScope, cells: pd.DataFrame, rated: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of `group_ctr` of groups with the `true_rate` of each creative.

    Args:
        planted: the truth.
        cells: cell, group_id and num_impressions, any number of rows a cell.
        rated: of the groups of these cells.
    """
    rates = true_rates(planted, cells)
    group, creative = (
        pd.Index(names).get_indexer(rated[column])
        for names, column in ((list(rates), "group_id"), (planted.creative_ids, "creative_id"))
    )
    return rated.assign(true_rate=np.stack(list(rates.values()))[group, creative])


def true_rates(planted: PlantedScope, cells: pd.DataFrame) -> dict[str, Array]:
    """Returns each group's true click rates at position 1, the impression-weighted mean over its cells, (C,) each."""
    weights: dict[str, Array] = {}
    for (group, cell), shown in cells.groupby(["group_id", "cell"])["num_impressions"].sum().items():
        weights[group] = weights.get(group, 0.0) + shown * planted.segment_shares[str(cell)]
    return {group: planted.rates @ weight / weight.sum() for group, weight in weights.items()}


def _group_of_cell(groups: pd.DataFrame) -> dict[str, str]:
    return {cell: group for group, cells in zip(groups["group_id"], groups["cells"], strict=True) for cell in cells}


def covered_rates(rated: pd.DataFrame) -> tuple[int, int]:
    """Returns how many rates there are, and how many lie within their 95% interval."""
    is_in = (rated["ctr_rate_low"] <= rated["true_rate"]) & (rated["true_rate"] <= rated["ctr_rate_high"])
    return len(rated), int(is_in.sum())


def _preferences_covered(
    planted: PlantedScope, rows: pd.DataFrame, features: pd.DataFrame, groups: pd.DataFrame
) -> tuple[int, int]:
    """The same of preferences: the truth is the fit to the expected clicks, on the same features and weights."""
    order = pd.Index(planted.creative_ids)
    values = features.set_index("creative_id")["feature_values"].reindex(order)
    design = design_creatives(planted.product_of, np.stack(values.to_list()))
    inside = rows.assign(group_id=rows["cell"].map(_group_of_cell(groups))).dropna(subset=["group_id"])
    rates, num_cases, num_covered = true_rates(planted, inside), 0, 0
    shown = inside.groupby(["group_id", "creative_id"])["effective_millis"]
    effective = (shown.sum() / 1000).unstack(fill_value=0.0).reindex(columns=order, fill_value=0.0)
    for row in groups.itertuples():
        impressions = effective.loc[row.group_id].to_numpy()[None]
        truth = fit_preference(design, impressions, impressions * rates[row.group_id]).preference[0] / design.scale
        error = np.abs(np.asarray(row.preference) - truth)
        num_cases += len(truth)
        num_covered += int((error <= 1.96 * np.asarray(row.preference_se)).sum())
    return num_cases, num_covered


def _position_bias(planted: PlantedScope, counts: MarketCounts, place: int, effects: PlaceEffects) -> dict[str, float]:
    """Log of how much creatives in high places gain over those in low ones, against the truth; 0 without bias.

    With positions corrected, and with every impression taken for one at position 1.
    """
    flat = replace(effects, examination_rates=dict.fromkeys(effects.examination_rates, 1.0))
    found = {}
    for name, assumed in (("with_correction", effects), ("without", flat)):
        of_scope = counts.of_scope(place, assumed)
        weights = np.stack([planted.segment_shares[cell] for cell in of_scope["cell"]])
        creative = pd.Index(planted.creative_ids).get_indexer(of_scope["creative_id"])
        expected = of_scope["effective_millis"] / 1000 * (weights * planted.rates[creative]).sum(axis=1)
        position = _mean_positions(counts, place)[creative]
        low, high = np.quantile(position, [1 / 3, 2 / 3])
        levels = [
            np.log(of_scope["num_clicks"][is_in].sum() / expected[is_in].sum())
            for is_in in (position <= low, position >= high)
        ]
        found[name] = float(levels[0] - levels[1])
    return found


def _mean_positions(counts: MarketCounts, place: int) -> Array:
    """Mean position of each creative of a scope, (C,)."""
    rows, num_creatives = counts.rows, len(counts.creative_ids)
    shown = np.bincount(rows.creative, rows.num_impressions, num_creatives)
    places = np.bincount(rows.creative, rows.num_impressions * rows.position, num_creatives)
    is_in = counts.scope_of_creative == place
    return places[is_in] / np.maximum(shown[is_in], 1)


def _with_scaled_tastes(market: Market, scale: float) -> Market:
    if scale == 1.0:
        return market
    scopes = tuple(
        replace(scope, segments=tuple(replace(one, taste=one.taste.scaled(scale)) for one in scope.segments))
        for scope in market.scopes
    )
    return replace(market, scopes=scopes)


def bench_pairs(spark: SparkSession, cases: list[PairCase], settings: TreeSettings) -> Iterator[CaseFrames]:
    """Yields what was found, a batch of cases at a time; each case is a task."""
    batch = spark.sparkContext.defaultParallelism
    for first in range(0, len(cases), batch):
        of_batch = cases[first : first + batch]

        def judge(frames: Iterator[pd.DataFrame], of_batch: list[PairCase] = of_batch) -> Iterator[pd.DataFrame]:
            for frame in frames:
                for index in frame["id"]:
                    yield pd.DataFrame([judge_case(of_batch[int(index)], settings).packed()])

        numbers = spark.range(0, len(of_batch), 1, len(of_batch))
        for row in numbers.mapInPandas(judge, "comparisons binary, intervals binary, bias binary").collect():
            yield CaseFrames.unpacked(row.asDict())


def _as_stream(frame: pd.DataFrame) -> bytes:
    table, sink = pa.Table.from_pandas(frame, preserve_index=False), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
