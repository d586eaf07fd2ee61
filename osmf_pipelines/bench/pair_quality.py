"""How right preference pairs are: simulated clicks, the pairs that a refresh would keep, and the truth beside each.

Rates and probabilities come from the very functions of a refresh. Comparing belongs in `comparisons.py`, what is made
of it in `pair_quality_report.py`, the counts in `market_counts.py`.

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
from osmf_pipelines.bench.comparisons import compare, covered_rates, true_rates, with_true_rates
from osmf_pipelines.bench.grouping import CONDITIONS, MARKETS, START, Condition
from osmf_pipelines.bench.grouping_score import PlantedScope
from osmf_pipelines.bench.market_counts import MarketCounts, count_market
from osmf_pipelines.spark.ctr import rate_scope
from osmf_pipelines.spark.place_effects import PlaceEffects
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.preference_model import design_creatives, fit_preference
from osmf_pipelines.spark.scope_groups import form_scope_groups

Array = NDArray[np.float64]


PAIR_CONDITIONS = {
    **CONDITIONS,
    "learning": Condition(Policy("epsilon_greedy", 0.2), num_days=5),
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
        """Returns the counts of the condition's days."""
        condition = PAIR_CONDITIONS[self.condition]
        market = MARKETS[self.market].make(self.seed)
        population = replace(market.population, activity=condition.activity)
        market = replace(_with_scaled_tastes(market, condition.taste_scale), population=population)
        num_creatives = len(market.products) * market.num_creatives_per_product
        num_segments = np.mean([len(scope.segments) for scope in market.scopes])
        per_day = round(self.impressions_per_arm * num_creatives * float(num_segments) / condition.num_days)
        shop, encoder = open_shop(market, self.seed, START, per_day), MARKETS[self.market].encoder
        return count_market(shop, condition.policy, condition.num_days, encoder)


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


def _rated(planted: PlantedScope, rows: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Rows of `group_ctr` of the groups, with the true rate: the mean over a group's cells, weighted by impressions."""
    group_of = _group_of_cell(groups)
    inside = rows.assign(group_id=rows["cell"].map(group_of)).dropna(subset=["group_id"])
    names = ["num_impressions", "num_clicks", "effective_millis"]
    keys = ["scope", "group_id", "product_id", "creative_id", "is_fitted"]
    rated = rate_scope(inside.groupby(keys, as_index=False)[names].sum())
    return with_true_rates(planted, inside, rated[~rated["is_scope_root"]])


def _group_of_cell(groups: pd.DataFrame) -> dict[str, str]:
    return {cell: group for group, cells in zip(groups["group_id"], groups["cells"], strict=True) for cell in cells}


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
    batch = 4 * spark.sparkContext.defaultParallelism
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
