"""`osmf bench loader`: how fast training reads its export, by one process and by two, in one JSON file.

What is measured, and what its keys mean, belongs in `osmf_models/stages/bench_loader.py`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from osmf_pipelines.bench.measured_stage import run_measurement

FORMAT = "osmf-bench-loader/1"
_NUM_RANKS = (1, 2)
_SEED = 0


def run_loader_bench(
    num_pictures: int, image_px: int, batch_size: int, num_passes: int, output: Path, console: Console
) -> dict[str, Any]:
    """Measures on a synthetic export, writes `output` and shows a table; returns what was written.

    Args:
        num_pictures: of the export, which is made in the folder for temporary files and removed.
        image_px: their side.
        batch_size: samples of a batch, over all processes.
        num_passes: timed passes of each way.
        output: JSON file.
        console: where progress and the table go.

    Returns:
        `format` and `runs`: one measurement for each number of processes, in rising order.

    Raises:
        ValueError: when the pictures are no whole number of batches, or two processes cannot share a batch.
        RuntimeError: when a measurement fails; the message ends with the last lines of its log.
    """
    if batch_size % max(_NUM_RANKS) or num_pictures % batch_size:
        told = f"{num_pictures} pictures in batches of {batch_size}"
        raise ValueError(f"{told}: batches must be even, for two processes, and a pass a whole number of them.")
    from osmf_models.data.synthetic_export import write_synthetic_export
    from osmf_models.data.unpacked import UNPACKED_NAME

    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    runs = []
    with (
        tempfile.TemporaryDirectory(prefix="osmf-bench-loader-") as folder,
        Progress(*columns, console=console) as bars,
    ):
        export = Path(folder) / "export"
        task = bars.add_task("pictures made", total=num_pictures)
        write_synthetic_export(export, num_pictures, image_px, _SEED, partial(bars.advance, task))
        task = bars.add_task("numbers of processes measured", total=len(_NUM_RANKS))
        for num_ranks in _NUM_RANKS:
            shutil.rmtree(export / UNPACKED_NAME, ignore_errors=True)
            arguments = ["--data", str(export), "--batch-size", str(batch_size), "--passes", str(num_passes)]
            runs.append(run_measurement("bench_loader", arguments, num_ranks))
            bars.advance(task)
    result = {"format": FORMAT, "runs": runs}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1))
    _show(runs, console)
    console.print(f"written to {output}", soft_wrap=True)
    return result


def _show(runs: list[dict[str, Any]], console: Console) -> None:
    first = runs[0]
    title = f"{first['num_pictures']:,} pictures, {first['image_px']} px, batch {first['batch_size']}"
    table = Table("", *[f"processes: {run['num_ranks']}" for run in runs], title=title)
    rows = {
        "loader, samples a second": ("loader_samples_per_second", "{:,.1f}"),
        "decoding every picture once, samples a second": ("decode_samples_per_second", "{:,.1f}"),
        "reading the shards, samples a second": ("read_samples_per_second", "{:,.0f}"),
        "loader, MB a second": ("loader_megabytes_per_second", "{:,.1f}"),
        "decoding every picture once, MB a second": ("decode_megabytes_per_second", "{:,.1f}"),
        "reading the shards, MB a second": ("read_megabytes_per_second", "{:,.0f}"),
        "loader : decoding": ("loader_over_decode", "{:.2f}"),
        "unpacking once, seconds": ("unpack_seconds", "{:.1f}"),
        "read from disk in the timed passes, bytes": ("disk_bytes", "{:,}"),
    }
    for label, (key, form) in rows.items():
        table.add_row(label, *[form.format(run[key]) for run in runs])
    console.print(table)
