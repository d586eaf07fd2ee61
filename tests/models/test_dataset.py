import hashlib
import io
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from osmf_models.config import DataConfig
from osmf_models.data.dataset import load_export, normalised_features
from osmf_models.data.pairs import shuffled_groups
from osmf_models.data.unpacked import UNPACKED_NAME


@pytest.fixture
def copy(export_folder, tmp_path):
    return shutil.copytree(export_folder, tmp_path / "export", ignore=shutil.ignore_patterns(UNPACKED_NAME))


def rewrite(folder, table_name, change):
    """Replaces a shard by `change(table)` and corrects the manifest, as a faulty exporter would."""
    path = folder / f"{table_name}-00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["table"] == table_name:
            file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            file["num_rows"] = pq.read_table(path).num_rows
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_first(table, column, value):
    values = table.column(column).to_pylist()
    return table.set_column(table.column_names.index(column), column, pa.array([value, *values[1:]]))


def test_features_are_normalised_over_the_groups(export):
    own = export.group_features[~export.groups.is_scope_root.to_numpy()]
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(own.std(0), 1, atol=1e-4)


def test_normalised_features_clip_what_is_far_away():
    np.testing.assert_array_equal(normalised_features(np.array([[3.0, 1e9]]), [1.0, 0.0], [2.0, 1.0]), [[1.0, 8.0]])


def test_pictures_and_rows_belong_together(export):
    pair = export.pairs.iloc[5]
    assert export.creatives.creative_id[pair.chosen_index] == pair.chosen_creative_id
    assert export.products.product_id[pair.product_index] == pair.product_id
    assert export.groups.group_id[pair.group_index] == pair.group_id
    assert export.images[0].shape == (32, 32, 3)
    assert export.masks[0].shape == (32, 32)
    assert 0 <= export.images[0].min() < export.images[0].max() <= 1


def test_groups_held_out_leave_no_rows_and_everything_else_stays(export, export_folder):
    scope = export.groups.scope[0]
    unseen = tuple(export.groups.group_id[(export.groups.scope == scope) & ~export.groups.is_scope_root][:1])
    found = load_export(export_folder, DataConfig(held_out_groups=unseen))
    assert list(found.groups.group_id[found.groups.is_held_out]) == list(unseen)
    np.testing.assert_array_equal(found.group_features, export.group_features)
    for name in ("examples", "pairs"):
        rows, before = getattr(found, name), getattr(export, name)
        expected = before[~before.group_id.isin(unseen)].reset_index(drop=True)
        assert 0 < len(rows) < len(before)
        pd.testing.assert_frame_equal(rows, expected)
    with pytest.raises(ValueError, match="group 'nobody' is not in the export"):
        load_export(export_folder, DataConfig(held_out_groups=("nobody",)))


def test_groups_held_out_are_not_drawn_for_others_pairs(export, export_folder):
    """Of the scope's two groups the one that is left speaks for all its pairs."""
    scope = export.groups.scope[0]
    own = export.groups[(export.groups.scope == scope) & ~export.groups.is_scope_root]
    assert len(own) == 2
    found = load_export(export_folder, DataConfig(held_out_groups=(own.group_id.iloc[0],)))
    pairs = found.pairs[(found.pairs.scope == scope) & ~found.pairs.is_scope_root]
    assert set(shuffled_groups(pairs, found, 0)) == {own.index[1]}


@pytest.mark.parametrize("missing", ["manifest.json", "creatives-00000.parquet"])
def test_missing_file_is_refused(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(ValueError, match=missing.split("-")[0]):
        load_export(copy, DataConfig())


def test_other_format_is_refused(copy):
    text = (copy / "manifest.json").read_text().replace("osmf-training-export/2", "osmf-training-export/9")
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="export/9"):
        load_export(copy, DataConfig())


@pytest.mark.parametrize("table", ["groups", "creatives"])
def test_altered_shard_is_refused(copy, table):
    path = copy / f"{table}-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="sha256 differs"):
        load_export(copy, DataConfig())


def test_shard_outside_the_export_is_refused(copy):
    text = (copy / "manifest.json").read_text().replace('"groups-00000.parquet"', '"../groups-00000.parquet"')
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="outside the export"):
        load_export(copy, DataConfig())


def test_other_columns_are_refused(copy):
    rewrite(copy, "products", lambda table: table.drop_columns(["title"]))
    with pytest.raises(ValueError, match=r"products.*has columns"):
        load_export(copy, DataConfig())


def test_pairs_of_unknown_groups_are_counted_and_refused(copy):
    rewrite(copy, "preference_pairs", lambda table: with_first(table, "group_id", "g99"))
    with pytest.raises(
        ValueError, match="preference_pairs: 1 rows are of groups that are not in table groups, as 'g99'"
    ):
        load_export(copy, DataConfig())
    rewrite(copy, "preference_pairs", lambda table: with_first(table.slice(1), "group_id", "g98"))
    rewrite(copy, "preference_pairs", lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    with pytest.raises(ValueError, match=r"preference_pairs: 2 rows are of groups .*, as 'g98': export again"):
        load_export(copy, DataConfig())


def test_pair_without_picture_is_left_out_and_counted(copy, export):
    rewrite(copy, "preference_pairs", lambda table: with_first(table, "chosen_creative_id", "gone"))
    changed = load_export(copy, DataConfig())
    assert changed.num_pairs_without_picture == 1
    assert len(changed.pairs) == len(export.pairs) - 1


def png(size, format_name="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        (b"no picture", "no readable PNG"),
        (png((32, 32), "JPEG"), "no readable PNG"),
        (png((16, 32)), "manifest says 32"),
        (png((2000, 32)), "more than 1024"),
        (png((32, 32), mode="L"), "of mode L, where RGB is needed"),
        (png((32, 32), mode="RGBA"), "of mode RGBA, where RGB is needed"),
    ],
)
def test_wrong_picture_is_refused_by_name_before_anything_is_learned(copy, content, message):
    rewrite(copy, "creatives", lambda table: with_first(table, "image_png", content))
    with pytest.raises(ValueError, match=f"the picture of p0c0 is .*{message}.*: export again"):
        load_export(copy, DataConfig())


def test_cutout_without_transparency_is_no_cutout(copy):
    """Taken for one it would say that the product covers the whole picture."""
    rewrite(copy, "products", lambda table: with_first(table, "cutout_png", png((32, 32))))
    with pytest.raises(ValueError, match="the cut-out of p0 is of mode RGB, where RGBA is needed: export again"):
        load_export(copy, DataConfig())


def test_picture_that_ends_early_is_refused_when_it_is_drawn(copy):
    rewrite(copy, "creatives", lambda table: with_first(table, "image_png", png((32, 32))[:-20]))
    with pytest.raises(
        ValueError, match=r"the picture of p0c0 is no readable PNG .image file is truncated.: export again"
    ):
        load_export(copy, DataConfig()).images[0]
