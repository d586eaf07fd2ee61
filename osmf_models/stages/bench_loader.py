"""Stage `bench_loader`: how fast batches are read from a training export, beside reading the same shards raw.

    python -m osmf_models.stages.bench_loader --data EXPORT --output FILE.json [--batch-size N] [--passes N]

One process, or as many as torch's launcher starts; nothing is trained. Three ways take turns, pass by pass:

- loader: draws as many examples as the export has pictures, in batches, as stage `pretrain` does, by one thread of each
  process, with no picture kept decoded, so that every one that is drawn is read and decoded;
- decode: takes every picture of the Parquet shards from first to last and decodes it;
- read: takes the bytes of the same shards from first to last.

The shards are shared by the processes. What one pass before the clock has left in the page cache stays there if memory
is large enough; `disk_bytes` tells. Rank 0 writes the keys of `LOADER_KEYS`. `osmf bench loader` runs it.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch
from osmf_models.data.dataset import PICTURE_COLUMNS, TrainingExport, load_export
from osmf_models.data.examples import examples_of_split
from osmf_models.records import ExportManifest
from osmf_models.stages.run_record import run_stage
from osmf_models.training import zero
from osmf_models.training.step_time import median_ratio

LOADER_KEYS = {
    "num_ranks": "processes that shared each batch, and the shards",
    "num_pictures": "samples of a pass, each of a picture, its mask and its product's cut-out",
    "image_px": "side of the pictures",
    "batch_size": "samples of a batch, over all ranks",
    "num_passes": "timed passes of each way, after one that is not timed",
    "shard_bytes": "of the Parquet shards with pictures",
    "disk_bytes": "read from disk in the timed passes, over all ranks, programs included; 0: the page cache had all",
    "unpack_seconds": "to verify the export and unpack its pictures, before their first use, all ranks at once",
    "load_seconds": "to load the export when its pictures are unpacked",
    "loader_samples_per_second": "over all ranks, median over passes",
    "decode_samples_per_second": "over all ranks, median over passes: the first bound",
    "read_samples_per_second": "over all ranks, median over passes: the second bound",
    "loader_megabytes_per_second": "of PNGs that were drawn, a megabyte being 10^6 bytes",
    "decode_megabytes_per_second": "of shards",
    "read_megabytes_per_second": "of shards",
    "loader_over_decode": "seconds for seconds, median of the ratios of neighbouring passes; 1.1 is 10% slower",
    "loader_over_read": "the same against reading alone",
    "loader_bytes_by_rank": "that each rank read from files in a pass, mean over passes",
}

_CHUNK_BYTES = 2**20
_ROWS_AT_ONCE = 64
Value = TypeVar("Value")


def main() -> None:
    """Runs the stage from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the training export")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--batch-size", type=int, default=64, help="samples of a batch, over all processes")
    parser.add_argument("--passes", type=int, default=3, help="timed passes of each way")
    options = parser.parse_args()
    with zero.process_group():
        measurement = measure(options.data, options.batch_size, options.passes)
        if zero.rank() == 0:
            options.output.write_text(json.dumps(measurement, indent=1))


def measure(folder: Path, batch_size: int, num_passes: int) -> dict[str, Any]:
    """Returns the keys of `LOADER_KEYS`; every process of the group must call it.

    Raises:
        ValueError: when a pass is no whole number of batches, or these cannot be shared equally by the processes.
    """
    config = DataConfig(num_cached_pictures=0)
    load = partial(load_export, folder, config)
    _, unpack_seconds = _timed(load)
    export, load_seconds = _timed(load)
    num_pictures = len(export.creatives)
    if num_pictures % batch_size:
        raise ValueError(f"{num_pictures} pictures are no whole number of batches of {batch_size}.")
    shards = _own_shards(folder, export.manifest)
    ways: dict[str, Callable[[int], None]] = {
        "loader": _loader_way(export, batch_size, num_pictures // batch_size),
        "decode": lambda _: _decode(shards),
        "read": lambda _: _read(shards),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    loader_bytes, disk_bytes = 0, 0
    for number in range(1 + num_passes):
        for name, run in ways.items():
            before = psutil.Process().io_counters()
            _, taken = _timed(partial(run, number))
            after = psutil.Process().io_counters()
            if number > 0:
                seconds[name].append(taken)
                disk_bytes += after.read_bytes - before.read_bytes
                loader_bytes += after.read_chars - before.read_chars if name == "loader" else 0
    counted = torch.tensor([[loader_bytes / num_passes, disk_bytes]], dtype=torch.float64, device=zero.device())
    by_rank = zero.all_ranks(counted).tolist()  # (rank, 2)
    shard_bytes = sum(file.num_bytes for file in export.manifest.files if file.table in PICTURE_COLUMNS)
    pass_bytes = {"loader": sum(own for own, _ in by_rank), "decode": shard_bytes, "read": shard_bytes}
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "num_ranks": zero.world_size(),
        "num_pictures": num_pictures,
        "image_px": export.manifest.image_px,
        "batch_size": batch_size,
        "num_passes": num_passes,
        "shard_bytes": shard_bytes,
        "disk_bytes": round(sum(disk for _, disk in by_rank)),
        "unpack_seconds": unpack_seconds,
        "load_seconds": load_seconds,
        **{f"{name}_samples_per_second": num_pictures / median[name] for name in ways},
        **{f"{name}_megabytes_per_second": pass_bytes[name] / 1e6 / median[name] for name in ways},
        "loader_over_decode": median_ratio(seconds["loader"], seconds["decode"]),
        "loader_over_read": median_ratio(seconds["loader"], seconds["read"]),
        "loader_bytes_by_rank": [round(own) for own, _ in by_rank],
    }


def _timed(run: Callable[[], Value]) -> tuple[Value, float]:
    """Returns what `run` returns, and the seconds until the last process was done."""
    zero.barrier()
    started = time.perf_counter()
    value = run()
    zero.barrier()
    return value, time.perf_counter() - started


def _own_shards(folder: Path, manifest: ExportManifest) -> list[tuple[Path, tuple[str, ...]]]:
    """Returns this process's share of the shards with pictures, and their columns of pictures."""
    shards = []
    for table, columns in PICTURE_COLUMNS.items():
        files = sorted(file.path for file in manifest.files if file.table == table)
        shards += [(folder / path, tuple(columns)) for path in files[zero.rank() :: zero.world_size()]]
    return shards


def _loader_way(export: TrainingExport, batch_size: int, num_batches: int) -> Callable[[int], None]:
    """Returns passes of the loader; each draws other batches."""
    examples = examples_of_split(export, 0.0, "train")

    def run(number: int) -> None:
        for step in range(number * num_batches, (number + 1) * num_batches):
            key = BatchKey.of_rank(0, step, batch_size, zero.rank(), zero.world_size())
            draw_generation_batch(export, examples, key, Dropout(), lambda uniform: uniform)

    return run


def _decode(shards: list[tuple[Path, tuple[str, ...]]]) -> None:
    for path, columns in shards:
        with pq.ParquetFile(path) as shard:
            for batch in shard.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
                for png in (png for column in batch.columns for png in column):
                    np.asarray(Image.open(io.BytesIO(png.as_py())))


def _read(shards: list[tuple[Path, tuple[str, ...]]]) -> None:
    for path, _ in shards:
        with path.open("rb", buffering=0) as shard:
            while shard.read(_CHUNK_BYTES):
                pass


if __name__ == "__main__":
    run_stage(main)
