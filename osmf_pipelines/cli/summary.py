"""What came of a demo: the numbers of `summary.json`, and the table that a reader sees."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from osmf_pipelines.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from osmf_pipelines.spark.lake import Lake

_ARMS = ("random", "best_single", "pretrained", "global_dpo", "group_dpo", "oracle")


def summarise(settings: Settings, bandit_settings: Settings, day: date, seconds: dict[str, float]) -> dict[str, Any]:
    """Returns the summary of a finished demo, read from what was published.

    Args:
        settings: of the market's lake.
        bandit_settings: of the Open Bandit logs' lake.
        day: as-of date of the market's pairs and models.
        seconds: wall time of each part.
    """
    from osmf_pipelines.resources.lake import LakeResource
    from osmf_pipelines.sources.open_bandit import PROXIES

    lake = LakeResource(settings).lake
    report = lake.read("evaluation_report", (day,)).first()
    assert report is not None
    evaluation = json.loads((settings.home / "evaluations" / str(day) / "run.json").read_text())
    registered = lake.read("registered_model", (day,)).first()
    assert registered is not None
    assert bandit_settings.end_date is not None
    return {
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "market": _count_events(lake),
        "open_bandit": {**_count_events(LakeResource(bandit_settings).lake), "proxies": list(PROXIES)},
        "arms": evaluation["metrics"],
        "registered": {
            "name": registered["model_name"],
            "version": registered["model_version"],
            "alias": registered["alias"],
        },
        "report_path": report["report_path"],
    }


def _count_events(lake: Lake) -> dict[str, Any]:
    """Events in, groups and pairs out."""
    from pyspark.sql import functions as F

    pairs, groups = lake.read("preference_pairs"), lake.read("group_features")
    wrong = pairs.where("NOT is_scope_root").agg(F.avg(1 - F.col("chosen_better_probability"))).collect()[0][0]
    return {
        "num_impressions": lake.read("bronze_impressions").count(),
        "num_clicks": lake.read("bronze_clicks").count(),
        "num_quarantined": lake.read("quarantined_events").count(),
        "num_exposures": lake.read("silver_exposures").count(),
        "num_clicked_exposures": lake.read("silver_exposures").where("is_clicked").count(),
        "num_scopes": groups.where("is_scope_root").count(),
        "num_groups": groups.where("NOT is_scope_root").count(),
        "num_group_pairs": pairs.where("NOT is_scope_root").count(),
        "num_contradiction_pairs": pairs.where("is_contradiction").count(),
        "expected_wrong_share": wrong,
    }


def print_summary(summary: dict[str, Any], settings: Settings, path: Path, console: Console) -> None:
    """Prints the tables, the paths, and the commands to go on with."""
    events = Table("", "simulated market", "Open Bandit logs", title="Logs to pairs", title_justify="left")
    for name in (key for key in summary["market"] if key != "expected_wrong_share"):
        events.add_row(
            name.removeprefix("num_").replace("_", " "),
            *[f"{summary[lake][name]:,}" for lake in ("market", "open_bandit")],
        )
    wrong = [summary[lake]["expected_wrong_share"] for lake in ("market", "open_bandit")]
    events.add_row(
        "expected share of wrong pairs", *["none kept" if value is None else f"{value:.3f}" for value in wrong]
    )
    console.print(events)
    console.print("Open Bandit logs hold 287 clicks: few pairs, or none, is the honest answer. Proxies:")
    for proxy in summary["open_bandit"]["proxies"]:
        console.print(f"  - {proxy}", highlight=False)
    arms = Table("pictures for products held out of training", "mean true CTR", "worst group", "picture quality")
    for arm in _ARMS:
        figures = [summary["arms"].get(f"{arm}/{name}") for name in ("mean_ctr", "worst_group_ctr", "picture_quality")]
        arms.add_row(arm, *["" if value is None else f"{value:.4f}" for value in figures])
    console.print(arms)
    console.print(f"picture grid   {summary['report_path']}/grid.png\nsummary        {path}", highlight=False)
    console.print("\nTo explore:", style="bold")
    console.print(f"  source {settings.home / 'activate'}", highlight=False, soft_wrap=True)
    console.print("  dagster dev     the asset graph, its checks, every run\n  mlflow ui       the models side by side")
    console.print("  osmf tables     what is published")
