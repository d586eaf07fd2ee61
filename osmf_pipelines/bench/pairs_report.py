"""What `osmf bench pairs` measured, as rows of its JSON; docs/scale.md describes the keys.

Pictures belong in `pairs_plots.py`, the terminal in `pairs_tables.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from osmf_pipelines.bench.growth import Growth, fit_growth
from osmf_pipelines.bench.process_memory import PeakMemory
from osmf_pipelines.bench.stage_times import AS_OF_STAGES, DAILY_STAGES, START

FORMAT = "osmf-bench-pairs/1"
_NUM_COMPARED_DAYS = 3
Row = dict[str, Any]
Stages = dict[str, Row]


def size_row(impressions: int, refreshes: Sequence[Row], num_rows: dict[str, int], peak: PeakMemory) -> Row:
    """Returns what one size cost the pipeline.

    Args:
        impressions: right ones, all days.
        refreshes: of `run_refreshes`.
        num_rows: of the published tables.
        peak: of the process and all that it started.
    """
    costs = _costs(_add_stages([one["stages"] for one in refreshes]))
    heap = refreshes[0]["driver_heap"]
    return {
        "impressions": impressions,
        **costs,
        "num_rows": num_rows,
        "peak_bytes": asdict(peak),
        "driver_heap": heap,
    }


def peer_part(seconds: dict[str, float], peak: PeakMemory, equality: dict[str, dict[str, int]], row: Row) -> Row:
    """Returns the row of a size with the peer's figures added.

    Args:
        seconds: of each stage of the peer, its `start` among them.
        peak: of its process.
        equality: rows and rows that differ, by table.
        row: the pipeline's.
    """
    total = sum(seconds.values()) - seconds["start"]
    told = {"seconds_by_stage": seconds, "daily_seconds": total, "peak_bytes": peak.tree, "equality": equality}
    return {**row, "duckdb": told, "daily_ratio_to_duckdb": row["daily_seconds"] / total}


def refresh_row(number: int, refresh: Row) -> Row:
    """Returns what one day's refresh cost.

    Args:
        number: of the day, from 1.
        refresh: of `run_refreshes`.
    """
    kept = {name: refresh[name] for name in ("starts_process", "num_reopened_days", "driver_heap")}
    return {"number": number, "day": refresh["first_day"], **kept, **_costs(refresh["stages"])}


def refresh_growth(rows: Sequence[Row]) -> Row | None:
    """Returns how the last days compare with the second and those after it; None for fewer than two to compare.

    Days that start a process are left out, the first one and the one that an interrupted run goes on with: they start
    the JVM. `last_to_second` compares single days, `last_to_first_few` medians of as many as three days from the second
    on and of as many last ones: `first_days` and `last_days`.
    """
    compared = [row for row in rows if not row["starts_process"]]
    if len(compared) < 2:
        return None
    few = min(_NUM_COMPARED_DAYS, len(compared) // 2)
    first, last = compared[:few], compared[-few:]
    told: Row = {
        "first_days": [row["number"] for row in first],
        "last_days": [row["number"] for row in last],
        "num_days": len(compared),
        "orchestration_share": _share_without_spark(compared),
        "median_seconds_by_stage": {
            name: {"first_days": _median(first, name), "last_days": _median(last, name)} for name in last[-1]["stages"]
        },
    }
    for name in ("daily_seconds", "as_of_seconds"):
        told[name] = {
            "last_to_second": last[-1][name] / first[0][name],
            "last_to_first_few": median(row[name] for row in last) / median(row[name] for row in first),
        }
    return told


def _median(rows: Sequence[Row], stage: str) -> float:
    return median(row["stages"][stage]["seconds"] if stage in row["stages"] else 0.0 for row in rows)


def _share_without_spark(rows: Sequence[Row]) -> float:
    return float(1 - sum(row["spark_seconds"] for row in rows) / sum(row["seconds"] for row in rows))


def groups_row(num_planted: int, steps: Sequence[Row], result: Row, peak: PeakMemory | None) -> Row:
    """Returns what groups from made-up sums cost; of a part that goes on, what is done so far.

    Args:
        num_planted: groups.
        steps: of `measure_many_groups`.
        result: of it; empty before its end.
        peak: of its process; None before its end.
    """
    seconds = {row["part"]: row["seconds"] for row in steps}
    return {"num_groups_planted": num_planted, "seconds": seconds, **result, "peak_bytes": peak and asdict(peak)}


def growth_rows(sizes: Sequence[Row]) -> dict[str, Row | None]:
    """Returns the growth of what is timed with the impressions; null where there are too few sizes."""
    impressions = [row["impressions"] for row in sizes]
    columns = {name: [row[name] for row in sizes] for name in ("daily_seconds", "seconds")}
    if sizes and all("duckdb" in row for row in sizes):
        columns["duckdb_daily_seconds"] = [row["duckdb"]["daily_seconds"] for row in sizes]
    found: dict[str, Growth | None] = {name: fit_growth(impressions, seconds) for name, seconds in columns.items()}
    return {name: None if growth is None else asdict(growth) for name, growth in found.items()}


def _costs(stages: Stages) -> Row:
    totals = {
        name: sum(stage[name] for stage in stages.values()) for name in ("seconds", "spark_seconds", "job_seconds")
    }
    return {
        **totals,
        "start_seconds": stages.get(START, {"seconds": 0.0})["seconds"],
        "daily_seconds": sum(stages[name]["seconds"] for name in DAILY_STAGES if name in stages),
        "as_of_seconds": sum(stages[name]["seconds"] for name in AS_OF_STAGES if name in stages),
        "orchestration_share": _share_without_spark([totals]),
        "stages": stages,
    }


def _add_stages(each: Sequence[Stages]) -> Stages:
    """The same stages of several runs, added up."""
    total: Stages = {}
    for stages in each:
        for name, stage in stages.items():
            total[name] = _add(total[name], stage) if name in total else stage
    return total


def _add(first: Row, second: Row) -> Row:
    phases = first["seconds_by_phase"].keys() | second["seconds_by_phase"].keys()
    added = {name: first[name] + second[name] for name in first if name != "seconds_by_phase"}
    by_phase = {
        name: first["seconds_by_phase"].get(name, 0.0) + second["seconds_by_phase"].get(name, 0.0) for name in phases
    }
    return {**added, "seconds_by_phase": by_phase}
