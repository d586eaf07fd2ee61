"""The report of a day as one HTML page: an asset that reads what is published and what the stages left, and writes it.

What is not there is told on the page: it can be materialised at any time. What the page says, and how it looks, belongs
in `osmf_pipelines/report/`.
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from osmf_pipelines.assets.groups import window_mapping
from osmf_pipelines.partitions import evidence_days
from osmf_pipelines.resources.lake import LakeResource
from osmf_pipelines.resources.tracking import attach
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_pipelines.report.facts import GroupFacts, MarketFacts, PairFacts, ReportFacts

_PAGE_NAME = "report.html"
_MAX_SCOPES, _MAX_GROUPS = 24, 120
_MODELS = ("pretrained_model", "global_dpo_model", "group_dpo_model", "group_reward_model")
_LEDGERS = ("ingest_ledger", "attribution_ledger")
_AS_OF = ("group_features", "group_ctr", "preference_pairs", *_MODELS, "evaluation_report", "registered_model")


def build_report_asset(partitions: dg.DailyPartitionsDefinition, settings: Settings) -> dg.AssetsDefinition:
    """Returns the asset `report_page`.

    What is known of the truth is shown where it is there, and is no dependency: nothing may be computed from it.
    """
    window = window_mapping(settings)

    @dg.asset(
        name="report_page",
        deps=[*_AS_OF, *(dg.AssetDep(name, partition_mapping=window) for name in _LEDGERS)],
        description="one page that tells a day's groups, pairs, models and verdict; HOME/reports",
        partitions_def=partitions,
        group_name="models",
        kinds={"html"},
        owners=["team:applied-science"],
        pool="spark",
    )
    def report_page(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[LakeResource]
    ) -> dg.MaterializeResult[Any]:
        day = date.fromisoformat(context.partition_key)
        path, told = write_report(lake, day)
        return dg.MaterializeResult(
            metadata={"page": dg.MetadataValue.path(str(path)), "open": dg.MetadataValue.url(path.as_uri()), **told}
        )

    return report_page


def report_path(settings: Settings, day: date) -> Path:
    """Returns where the page of a day lies."""
    return settings.home.absolute() / "reports" / str(day) / _PAGE_NAME


def write_report(resource: LakeResource, day: date) -> tuple[Path, dict[str, Any]]:
    """Writes the page of a day, keeps it with its evaluation's MLflow run, and returns its path and what to tell."""
    from osmf_pipelines.report.facts import Missing
    from osmf_pipelines.report.page import render

    facts = read_facts(resource, day)
    path = report_path(resource.settings, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(render(facts), encoding="utf-8")
    temporary.replace(path)
    told: dict[str, Any] = {"num_bytes": path.stat().st_size, "missing": facts.missing()}
    run_id = None if isinstance(facts.evaluation, Missing) else facts.evaluation.mlflow_run_id
    if run_id is not None:
        attach(resource.settings, run_id, path)
        told["mlflow_run_id"] = run_id
    return path, told


def read_facts(resource: LakeResource, day: date) -> "ReportFacts":
    """Returns what there is to tell of a day; what is missing or broken is told by its reason."""
    from osmf_pipelines.promotion.audit import AuditTrail
    from osmf_pipelines.promotion.promote import trail_path
    from osmf_pipelines.report import read
    from osmf_pipelines.report.facts import Missing, ReportFacts

    market = read.unless_broken(lambda: _market(resource, day), "The market")
    scopes = [] if isinstance(market, Missing) else market.scopes
    largest = sorted(scopes, key=lambda one: (-one.num_impressions, one.scope))[:_MAX_SCOPES]
    folders = _folders(resource, day)
    evaluation = folders.pop("evaluation_report", None)
    trainings = {name.removesuffix("_model"): folder for name, folder in folders.items()}
    registered, trail = _registered(resource, day), AuditTrail(trail_path(resource.settings))
    not_judged = "Models of this day have not been judged: materialise the asset evaluation_report."
    not_registered = "No model of this day is registered: materialise the asset registered_model."
    return ReportFacts(
        as_of_date=str(day),
        market=market,
        groups=read.unless_broken(lambda: _groups(resource, day, [one.scope for one in largest]), "The groups"),
        pairs=read.unless_broken(lambda: _pairs(resource, day), "The pairs"),
        training=read.unless_broken(lambda: read.read_training(trainings), "The curves"),
        evaluation=_or_missing(evaluation, not_judged, read.read_evaluation, "The evaluation"),
        ablation=read.unless_broken(
            lambda: read.read_ablation(resource.settings.home / "ablation" / "ablation.json"), "The ablation"
        ),
        verdict=_or_missing(registered, not_registered, lambda row: read.verdict_of(row, trail.read()), "The verdict"),
    )


def _or_missing(value: Any, why: str, read_it: Callable[[Any], Any], what: str) -> Any:
    from osmf_pipelines.report.facts import Missing
    from osmf_pipelines.report.read import unless_broken

    return Missing(why) if value is None else unless_broken(lambda: read_it(value), what)


def _folders(resource: LakeResource, day: date) -> dict[str, Path]:
    """What the stages of a day wrote, by the table that tells it; one query, because each costs a demo time."""
    from functools import reduce

    from pyspark.sql import functions as F

    columns = {**dict.fromkeys(_MODELS, "model_path"), "evaluation_report": "report_path"}
    found = [
        resource.lake.read(name, (day,)).select(F.lit(name).alias("name"), F.col(column).alias("folder")).limit(1)
        for name, column in columns.items()
        if resource.lake.exists(name)
    ]
    rows = reduce(lambda one, other: one.unionByName(other), found).collect() if found else []
    return {name: Path(folder) for name, folder in rows}


def _registered(resource: LakeResource, day: date) -> Any:
    """The row of the registered model; None where there is none."""
    name = "registered_model"
    return resource.lake.read(name, (day,)).first() if resource.lake.exists(name) else None


def _market(resource: LakeResource, day: date) -> "MarketFacts":
    from osmf_pipelines.report.facts import MarketFacts, ScopeFacts
    from osmf_pipelines.spark.report_sums import sum_events, sum_scopes

    lake, days = resource.lake, evidence_days(day, resource.settings.evidence_window_days)
    scopes = sum_scopes(lake.read("group_features", (day,)), lake.read("group_ctr", (day,))).collect()
    _check_published(scopes, "group_features", day)
    events = sum_events(*(lake.read(name, days) for name in _LEDGERS)).collect()
    dates = [str(row[name]) for row in events for name in ("first_date", "last_date")]
    return MarketFacts(
        first_date=min(dates, default=""),
        last_date=max(dates, default=""),
        num_events={(row["event_type"], row["outcome"]): row["num_events"] for row in events},
        scopes=[ScopeFacts(**row.asDict()) for row in scopes],
    )


def _groups(resource: LakeResource, day: date, scopes: Sequence[str]) -> "list[GroupFacts]":
    from osmf_pipelines.report.facts import GroupFacts
    from osmf_pipelines.spark.report_sums import list_groups

    rows = list_groups(resource.lake.read("group_features", (day,)), scopes, _MAX_GROUPS).collect()
    _check_published(rows, "group_features", day)
    return [
        GroupFacts(
            tastes=[
                (name, value / error if error > 0 else 0.0)
                for name, value, error in zip(
                    row["feature_names"], row["preference"], row["preference_se"], strict=True
                )
            ],
            **{
                name: row[name]
                for name in (
                    "group_id",
                    "scope",
                    "description",
                    "rule",
                    "num_users",
                    "num_impressions",
                    "num_clicks",
                )
            },
        )
        for row in rows
    ]


def _pairs(resource: LakeResource, day: date) -> "PairFacts":
    from osmf_pipelines.report.facts import PairFacts, ScopePairs
    from osmf_pipelines.report.read import calibration_of
    from osmf_pipelines.spark.pairs import count_by_probability
    from osmf_pipelines.spark.report_sums import sum_pairs_by_scope

    pairs = resource.lake.read("preference_pairs", (day,))
    by_scope = [ScopePairs(**row.asDict()) for row in sum_pairs_by_scope(pairs).orderBy("scope").collect()]
    knows_truth = resource.lake.exists("truth_report")
    truth = resource.lake.read("truth_report", (day,)).collect() if knows_truth else []
    wrong_share, calibration = calibration_of([row.asDict() for row in truth])
    return PairFacts(
        min_probability=resource.settings.min_pair_probability,
        by_probability=count_by_probability(pairs),
        by_scope=by_scope,
        wrong_share=wrong_share,
        calibration=calibration,
    )


def _check_published(rows: Sequence[Any], name: str, day: date) -> None:
    if not rows:
        raise ValueError(f"{name} of {day} has not been published: materialise the asset {name} of that day first.")
