"""Pictures are read from disk one by one, by the rank whose share they are of, and no rank holds them all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from planted_export import write_export
from test_dataset import rewrite

from osmf_models.config import DataConfig
from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch
from osmf_models.data.dataset import load_export
from osmf_models.data.examples import examples_of_split
from osmf_models.data.unpacked import UNPACKED_NAME
from osmf_models.records import ExportManifest

UNCACHED = DataConfig(num_cached_pictures=0)
COLUMNS = {"cutouts": "cutout_png", "images": "image_png", "masks": "mask_png"}


@pytest.fixture
def copy(export_folder, tmp_path):
    return shutil.copytree(export_folder, tmp_path / "export", ignore=shutil.ignore_patterns(UNPACKED_NAME))


class Asked:
    """Pictures that note which of them are asked for."""

    def __init__(self, pictures):
        self.pictures, self.rows = pictures, set()

    def __getitem__(self, index):
        self.rows.add(int(index))
        return self.pictures[index]


def draw(export, rank, world_size=2):
    key = BatchKey.of_rank(0, 0, 4, rank, world_size)
    return draw_generation_batch(
        export, examples_of_split(export, 1.0, "train"), key, Dropout(), lambda uniform: uniform
    )


def lengths(folder, table, column):
    (file,) = [one for one in ExportManifest.read(folder).files if one.table == table]
    rows = pq.read_table(folder / UNPACKED_NAME / file.sha256 / "rows.parquet")
    return rows.column(f"{column}_num_bytes").to_numpy(), folder / UNPACKED_NAME / file.sha256 / f"{column}.pngs"


def test_a_rank_reads_the_pictures_of_its_own_share_and_no_other(copy):
    """All other pictures are overwritten: its batch is the same, and the other rank's, which needs them, is refused."""
    asked = {name: Asked(getattr(load_export(copy, UNCACHED), name)) for name in COLUMNS}
    expected = draw(replace(load_export(copy, UNCACHED), **asked), rank=0)
    num_bytes = 0
    for name, column in COLUMNS.items():
        sizes, path = lengths(copy, "products" if name == "cutouts" else "creatives", column)
        content, starts = bytearray(path.read_bytes()), np.cumsum(sizes) - sizes
        others = set(range(len(sizes))) - asked[name].rows
        assert len(others) > len(asked[name].rows)
        for row in others:
            content[starts[row] : starts[row] + sizes[row]] = bytes(int(sizes[row]))
        path.write_bytes(content)
        num_bytes += sum(int(sizes[row]) for row in asked[name].rows)
    export, process = load_export(copy, UNCACHED), psutil.Process()
    before = process.io_counters().read_chars
    found = draw(export, rank=0)
    num_read = process.io_counters().read_chars - before
    torch.testing.assert_close(found.pictures.images, expected.pictures.images, rtol=0, atol=0)
    torch.testing.assert_close(found.pictures.masks, expected.pictures.masks, rtol=0, atol=0)
    torch.testing.assert_close(found.condition.product_view, expected.condition.product_view, rtol=0, atol=0)
    assert num_bytes <= num_read < 2 * num_bytes + 4096  # a picture may be drawn twice
    with pytest.raises(ValueError, match=r"is not what was unpacked \(CRC-32 differs\): delete the folder"):
        draw(export, rank=1)


READ_ALL = """
import resource, sys
from pathlib import Path
from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export

def peak_bytes_of_reading(folder):
    export = load_export(Path(folder), DataConfig(num_cached_pictures=4))
    for index in range(len(export.creatives)):
        export.images[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak_bytes_of_reading(sys.argv[1])
print(peak_bytes_of_reading(sys.argv[2]) - before)
"""


def test_memory_does_not_grow_with_the_bytes_of_pictures(export_folder, tmp_path):
    """400 pictures of 0.1 MB, unpacked and then read one after the other, leave the process as small as 48 of 2 KB."""
    write_export(tmp_path, num_products=100)

    def padded(table):
        pngs = [png + os.urandom(100_000) for png in table.column("image_png").to_pylist()]  # decoders stop before it
        return table.set_column(table.column_names.index("image_png"), "image_png", pa.array(pngs))

    rewrite(tmp_path, "creatives", padded)
    program = [sys.executable, "-c", READ_ALL, str(export_folder), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.4 * 400 * 100_000


def test_processes_that_start_at_once_unpack_each_shard_once(copy, export, caplog):
    with caplog.at_level("INFO"), ThreadPoolExecutor(4) as at_once:
        loaded = list(at_once.map(lambda _: load_export(copy, UNCACHED), range(4)))
    assert sorted(message.split()[1] for message in caplog.messages if message.startswith("unpacked")) == [
        "creatives-00000.parquet:",
        "products-00000.parquet:",
    ]
    assert not list((copy / UNPACKED_NAME).glob("*.part"))
    for one in loaded:
        assert one.creatives.equals(export.creatives)
        np.testing.assert_array_equal(one.images[7], export.images[7])


def test_what_a_killed_process_left_is_unpacked_afresh(copy, export):
    for file in ExportManifest.read(copy).files:
        part = copy / UNPACKED_NAME / f"{file.sha256}.part"
        part.mkdir(parents=True)
        (part / "image_png.pngs").write_bytes(b"half")
    np.testing.assert_array_equal(load_export(copy, UNCACHED).images[7], export.images[7])


def test_pictures_of_several_shards_stand_in_their_order(copy, export):
    """The shard of creatives is cut in two; all is as before."""
    manifest = ExportManifest.read(copy)
    (whole,) = [file for file in manifest.files if file.table == "creatives"]
    table = pq.read_table(copy / whole.path)
    files = [file for file in manifest.files if file != whole]
    for number, part in enumerate((table.slice(0, 20), table.slice(20))):
        path = copy / f"creatives-0000{number}.parquet"
        pq.write_table(part, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(replace(whole, path=path.name, num_rows=part.num_rows, sha256=digest))
    replace(manifest, files=tuple(files)).write(copy)
    found = load_export(copy, UNCACHED)
    assert found.creatives.equals(export.creatives)
    for row in (0, 19, 20, 47):
        np.testing.assert_array_equal(found.images[row], export.images[row])
        np.testing.assert_array_equal(found.masks[row], export.masks[row])


def test_export_that_cannot_be_written_is_refused(copy):
    (copy / UNPACKED_NAME).write_text("a file where a folder is to be")
    with pytest.raises(
        ValueError, match="pictures are unpacked there before their first use, and it cannot be written"
    ):
        load_export(copy, UNCACHED)
