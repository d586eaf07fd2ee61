"""How right groups and pairs are: an asset where the logs are a simulated market's, and none where they are real.

Nothing is computed from it. What real logs tell of themselves is with the assets `form_groups` and `preference_pairs`:
the log-likelihood that held-out users gain, the expected share of wrong pairs.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from osmf_pipelines.assets.groups import as_of_asset, window_mapping
from osmf_pipelines.assets.metadata import as_table, picture
from osmf_pipelines.assets.plots import plot_truth
from osmf_pipelines.assets.publishing import Facts, Outcome, cached, publish
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings

_MARKET_FILE = "market.json"


def build_truth_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the asset `truth_report` where there is a truth.

    Raises:
        ValueError: when the folder that the settings name holds none.
    """
    if not has_truth(settings):
        return []
    window = window_mapping(settings)
    deps: list[str | dg.AssetDep] = [
        *(dg.AssetDep(name, partition_mapping=window) for name in ("creative_stats", "cell_users"))
    ]
    deps += ["user_groups", "group_ctr", "creatives"]
    return [as_of_asset("truth_report", ("truth_report",), deps, _report, partitions)]


def has_truth(settings: Settings) -> bool:
    """Returns whether the logs are those of a simulated market.

    Raises:
        ValueError: when the settings name a folder of its truth, and it holds none.
    """
    is_named, is_there = settings.truth_path != Path(), (settings.truth_folder / _MARKET_FILE).is_file()
    if is_named and not is_there:
        raise ValueError(
            f"OSMF_TRUTH_PATH={settings.truth_path} holds no {_MARKET_FILE}: name a market's truth folder."
        )
    return is_there and (is_named or settings.source == "files")


def _report(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.bench.refresh_score import score_refresh
    from osmf_pipelines.spark.preference_cuts import TreeSettings

    settings, pinned = (
        resource.settings,
        resource.lake.pin(("creative_stats", "cell_users", "user_groups", "group_ctr", "creatives")),
    )
    days = evidence_days(day, settings.evidence_window_days)
    groups = pinned.read("user_groups", (day,))
    scored = score_refresh(
        settings.truth_folder,
        pinned.read("creative_stats", days),
        pinned.read("cell_users", days),
        groups,
        pinned.read("group_ctr", (day,)),
        pinned.read("creatives"),
        as_of_date=day,
        settings=TreeSettings(min_users=settings.min_group_users, min_clicks=settings.min_group_clicks),
        min_probability=settings.min_pair_probability,
    )
    with cached(scored):
        rows = [row.asDict() for row in scored.orderBy("scope", "measure", "probability_from").collect()]

        def count_scopes(candidate: Any) -> Facts:
            num_scopes = groups.select("scope").distinct().count()
            return [{"num_scopes_missing": num_scopes - candidate.select("scope").distinct().count()}]

        told = _tell(rows)
        common: dict[str, Any] = {"inputs": pinned.versions, "days": (day,), "metadata": told}
        yield from publish(context, resource, "truth_report", scored, facts=count_scopes, **common)


def _tell(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A table and a picture of the scopes, most users first, and what is told of all comparisons."""
    by_scope: dict[str, dict[str, float]] = {}
    num_users = {row["scope"]: row["num_cases"] for row in rows if row["measure"] == "num_groups"}
    for row in sorted(rows, key=lambda row: (-num_users[row["scope"]], row["scope"])):
        if row["probability_from"] is None:
            by_scope.setdefault(row["scope"], {})[row["measure"]] = row["value"]
    measures = sorted({name for found in by_scope.values() for name in found})
    table = [{"scope": scope, **{name: found.get(name) for name in measures}} for scope, found in by_scope.items()]
    gains = [
        (scope, found["ctr_share_of_oracle_one_size"], found["ctr_share_of_oracle"])
        for scope, found in by_scope.items()
    ]
    calibration = [
        (_mean(rows, "claimed_right_share", start), _mean(rows, "right_share", start), _num_cases(rows, start))
        for start in sorted({row["probability_from"] for row in rows} - {None})
    ]
    has_pairs = any(row["measure"] == "wrong_share" for row in rows)
    shares = {name: _mean(rows, name, None) for name in ("expected_wrong_share", "wrong_share")} if has_pairs else {}
    plot = plot_truth(gains, calibration)
    return {
        **shares,
        "scopes": as_table(table),
        "against_the_truth": picture(plot, "groups and pairs beside the truth"),
    }


def _mean(rows: list[dict[str, Any]], measure: str, start: float | None) -> float:
    """The mean of a measure over the cases behind it."""
    chosen = [row for row in rows if row["measure"] == measure and row["probability_from"] == start]
    return sum(row["value"] * row["num_cases"] for row in chosen) / sum(row["num_cases"] for row in chosen)


def _num_cases(rows: list[dict[str, Any]], start: float) -> int:
    return sum(row["num_cases"] for row in rows if row["measure"] == "right_share" and row["probability_from"] == start)
