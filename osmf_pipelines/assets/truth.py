"""How right groups and pairs are: an asset where the logs are a simulated market's, and none where they are real.

Nothing is computed from it. What real logs tell of themselves is with the assets `form_groups` and `preference_pairs`:
the log-likelihood that held-out users gain, the expected share of wrong pairs.
"""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from osmf_pipelines.assets.groups import as_of_asset, window_mapping
from osmf_pipelines.assets.metadata import as_table, picture
from osmf_pipelines.assets.plots import plot_truth
from osmf_pipelines.assets.publishing import Facts, Outcome, cached, publish
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.settings import Settings


def build_truth_assets(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> list[dg.AssetsDefinition]:
    """Returns the asset `truth_report` where there is a truth."""
    if settings.source != "files" or not settings.truth_folder.is_dir():
        return []
    window = window_mapping(settings)
    deps = [*(dg.AssetDep(name, partition_mapping=window) for name in ("creative_stats", "cell_users"))]
    return [as_of_asset("truth_report", ("truth_report",), [*deps, "user_groups", "group_ctr"], _report, partitions)]


def _report(context: dg.AssetExecutionContext, resource: LakeResource, day: date) -> Iterator[Outcome]:
    from osmf_pipelines.bench.refresh_score import score_refresh
    from osmf_pipelines.spark.preference_cuts import TreeSettings

    settings, pinned = (
        resource.settings,
        resource.lake.pin(("creative_stats", "cell_users", "user_groups", "group_ctr")),
    )
    days = evidence_days(day, settings.evidence_window_days)
    groups = pinned.read("user_groups", (day,))
    scored = score_refresh(
        settings.truth_folder,
        pinned.read("creative_stats", days),
        pinned.read("cell_users", days),
        groups,
        pinned.read("group_ctr", (day,)),
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
    """A table and a picture of the scopes, and what is told of all comparisons."""
    by_scope: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["probability_from"] is None:
            by_scope.setdefault(row["scope"], {"scope": row["scope"]})[row["measure"]] = row["value"]
    measures = sorted({name for told in by_scope.values() for name in told} - {"scope"})
    scopes = [{"scope": scope, **{name: told.get(name) for name in measures}} for scope, told in by_scope.items()]
    wrong = [row for row in rows if row["measure"] in ("wrong_share", "expected_wrong_share")]
    shares = {
        name: _mean([row for row in wrong if row["measure"] == name])
        for name in ("wrong_share", "expected_wrong_share")
    }
    told: dict[str, Any] = {name: share for name, share in shares.items() if share is not None}
    bins = [row for row in rows if row["probability_from"] is not None]
    calibration = []
    for start in sorted({row["probability_from"] for row in bins}):
        inside = [row for row in bins if row["probability_from"] == start]
        claimed, right = (
            [row for row in inside if row["measure"] == name] for name in ("claimed_right_share", "right_share")
        )
        calibration.append((_mean(claimed) or 0.0, _mean(right) or 0.0, sum(row["num_cases"] for row in right)))
    plot = plot_truth(
        [(one["scope"], one["ctr_share_of_oracle_one_size"], one["ctr_share_of_oracle"]) for one in scopes], calibration
    )
    return {
        **told,
        "scopes": as_table(scopes),
        "against_the_truth": picture(plot, "groups and pairs against the truth"),
    }


def _mean(rows: list[dict[str, Any]]) -> float | None:
    """The mean over the cases behind the rows."""
    num_cases = sum(row["num_cases"] for row in rows)
    return sum(row["value"] * row["num_cases"] for row in rows) / num_cases if num_cases else None
