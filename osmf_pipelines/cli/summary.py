"""What came of a demo: the numbers of `summary.json`, and the tables that a reader sees."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from osmf_models.records import RUN_RECORD_NAME
from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from osmf_pipelines.spark.lake import Lake

_LAKES = ("market", "open_bandit")
_ARMS = ("random", "best_single", "pretrained", "chosen_only", "shuffled_dpo", "global_dpo", "group_dpo", "oracle")


def summarise_data(settings: Settings, bandit_settings: Settings) -> dict[str, Any]:
    """Returns what became of the events of both lakes, read from what was published.

    Args:
        settings: of the market's lake.
        bandit_settings: of the Open Bandit logs' lake.
    """
    from osmf_pipelines.resources.lake import LakeResource
    from osmf_pipelines.sources.open_bandit import PROXIES

    lakes = [LakeResource(lake_settings) for lake_settings in (settings, bandit_settings)]
    market, bandit = (_count_events(lake.lake, lake.settings) for lake in lakes)
    market |= {"true_wrong_share": _true_wrong_share(lakes[0].lake), "policies": _policies(lakes[0].lake)}
    return {"market": market, "open_bandit": {**bandit, "proxies": list(PROXIES)}}


def summarise_models(settings: Settings, day: date) -> dict[str, Any]:
    """Returns how the models as of `day` were judged, and which was registered."""
    from osmf_pipelines.assets.models import MODELS, REWARD
    from osmf_pipelines.assets.report_page import report_path
    from osmf_pipelines.resources.lake import LakeResource

    lake = LakeResource(settings).lake
    report, registered = (lake.read(name, (day,)).first() for name in ("evaluation_report", "registered_model"))
    assert report is not None
    assert registered is not None
    evaluation = json.loads((settings.home / "evaluations" / str(day) / "run.json").read_text())
    return {
        "arms": evaluation["metrics"],
        "trainings": {name: _training(lake, name, day) for name in (*MODELS, REWARD)},
        "registered": {
            "name": registered["model_name"],
            "version": registered["model_version"],
            "alias": registered["alias"],
        },
        "report_path": report["report_path"],
        "report_page": str(report_path(settings, day)),
    }


def _training(lake: Lake, name: str, day: date) -> dict[str, Any]:
    """How long a model took, and what its stage says of it."""
    row = lake.read(name, (day,)).first()
    assert row is not None
    record = json.loads((Path(row["model_path"]) / RUN_RECORD_NAME).read_text())
    return {"wall_seconds": record["wall_seconds"], "metrics": record["metrics"]}


def _true_wrong_share(lake: Lake) -> float | None:
    """Share of the pairs of groups that are wrong by the truth; None where it is not known, or there are no pairs."""
    if not lake.exists("truth_report"):
        return None
    rows = lake.read("truth_report").where("measure = 'wrong_share'").select("value", "num_cases").collect()
    num_cases = sum(row["num_cases"] for row in rows)
    return sum(row["value"] * row["num_cases"] for row in rows) / num_cases if num_cases else None


def _policies(lake: Lake) -> dict[str, dict[str, float]]:
    """Clicks an impression of each policy on the logs of everyone, doubly robust, with the ends of its interval."""
    of_all = lake.read("policy_values").where("scope IS NULL AND logged_arm IS NULL AND compared_with IS NULL")
    rows = of_all.where("estimator IN ('dr', 'on_policy')").collect()
    return {row["policy"]: {name: row[name] for name in ("value", "value_low", "value_high")} for row in rows}


def _count_events(lake: Lake, settings: Settings) -> dict[str, Any]:
    """Events in, groups and pairs out."""
    from pyspark.sql import functions as F

    from osmf_pipelines.spark.pairs import count_pairs

    ingested, attributed = (_totals(lake, name) for name in ("ingest_ledger", "attribution_ledger"))
    pairs, groups = lake.read("preference_pairs"), lake.read("group_features")
    own = lake.read("group_ctr").where("NOT is_scope_root")
    counts = count_pairs(own, min_probability=settings.min_pair_probability)
    late = lake.read("bronze_clicks").where(F.to_date("clicked_at") < F.col("source_date")).count()
    exposures = lake.read("silver_exposures")
    return {
        "num_impressions_read": sum(ingested["impression"].values()),
        "num_clicks_read": sum(ingested["click"].values()),
        "num_deduplicated": ingested["impression"]["deduplicated"] + ingested["click"]["deduplicated"],
        "num_quarantined": ingested["impression"]["quarantined"] + ingested["click"]["quarantined"],
        "num_bot_impressions": attributed["impression"]["bot"],
        "num_orphan_clicks": attributed["click"]["orphan"],
        "num_late_clicks": late,
        "num_exposures": exposures.count(),
        "num_clicked_exposures": exposures.where("is_clicked").count(),
        "num_scopes": groups.where("is_scope_root").count(),
        "num_groups": groups.where("NOT is_scope_root").count(),
        "num_group_pairs": pairs.where("NOT is_scope_root").count(),
        "num_insufficient_evidence": counts.num_insufficient_evidence,
        "num_contradiction_pairs": pairs.where("is_contradiction").count(),
        "num_exported_pairs": _count_exported(lake),
        "expected_wrong_share": counts.expected_wrong_share,
    }


def _totals(lake: Lake, ledger: str) -> dict[str, dict[str, int]]:
    """Events of all days by kind and outcome."""
    totals: dict[str, dict[str, int]] = {}
    for row in lake.read(ledger).groupBy("event_type", "outcome").sum("num_events").collect():
        totals.setdefault(row["event_type"], {})[row["outcome"]] = row["sum(num_events)"]
    return totals


def _count_exported(lake: Lake) -> int:
    """Pairs in the training export; 0 where there are no pictures, hence no export."""
    if not lake.exists("training_export"):
        return 0
    rows = lake.read("training_export").where("export_table = 'preference_pairs'").select("num_rows").collect()
    return sum(row["num_rows"] for row in rows)


def read_summary(path: Path) -> dict[str, Any]:
    """Returns what a demo before this one told; nothing where there was none."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def print_full_summary(summary: dict[str, Any], settings: Settings, path: Path, console: Console) -> None:
    """Prints the tables of the demo and those of its closed loop, the paths, and the commands to go on with."""
    from osmf_pipelines.bench.closed_loop_report import print_loop

    loop = summary["closed_loop"]
    _print_events(summary, console)
    _print_arms(summary["arms"], console)
    print_loop(loop, console)
    experiment, folder = loop["rounds"][-1]["experiment_id"], settings.home / "closed_loop"
    console.print(f"loop           {folder / 'closed_loop.png'}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"serving map    {settings.home / 'serving'}", highlight=False, soft_wrap=True, markup=False)
    _print_paths(summary, settings, path, console)
    shares = " ".join(f"--split {arm}={share:.4f}" for arm, share in loop["rounds"][-1]["shares"].items())
    console.print(f"  osmf ab --experiment {experiment} {shares}", highlight=False, soft_wrap=True)


def print_summary(summary: dict[str, Any], settings: Settings, path: Path, console: Console) -> None:
    """Prints the tables, the paths, and the commands to go on with."""
    _print_events(summary, console)
    if "arms" in summary:
        _print_arms(summary["arms"], console)
    _print_paths(summary, settings, path, console)


def _print_paths(summary: dict[str, Any], settings: Settings, path: Path, console: Console) -> None:
    if "arms" in summary:
        console.print(f"picture grid   {summary['report_path']}/grid.png", highlight=False)
        console.print(f"report page    {escape(summary['report_page'])}", highlight=False, soft_wrap=True)
    console.print(f"summary        {path}", highlight=False)
    console.print("\nTo explore:", style="bold")
    console.print(f"  source {settings.home / 'activate'}", highlight=False, soft_wrap=True)
    console.print("  dagster dev     the asset graph, its checks, every run\n  mlflow ui       the models side by side")
    console.print("  osmf tables     what is published")


def _print_events(summary: dict[str, Any], console: Console) -> None:
    events = Table("", "simulated market", "Open Bandit logs", title="Logs to pairs", title_justify="left")
    for name in (key for key in summary["market"] if key.startswith("num_")):
        label = name.removeprefix("num_").replace("_", " ")
        events.add_row(label, *[f"{summary[lake][name]:,}" for lake in _LAKES])
    wrong = [summary[lake]["expected_wrong_share"] for lake in _LAKES]
    events.add_row(
        "expected share of wrong pairs", *["none kept" if value is None else f"{value:.3f}" for value in wrong]
    )
    console.print(events)
    console.print("Open Bandit logs hold 287 clicks: few pairs, or none, is the honest answer. Proxies:")
    for proxy in summary["open_bandit"]["proxies"]:
        console.print(f"  - {proxy}", highlight=False)


def _print_arms(metrics: dict[str, Any], console: Console) -> None:
    arms = Table("pictures for products held out of training", "mean true CTR", "worst group", "picture quality")
    for arm in (one for one in _ARMS if any(name.startswith(f"{one}/") for name in metrics)):
        figures = [metrics.get(f"{arm}/{name}") for name in ("mean_ctr", "worst_group_ctr", "picture_quality")]
        arms.add_row(arm, *["" if value is None else f"{value:.4f}" for value in figures])
    console.print(arms)
