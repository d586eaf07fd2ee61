"""The contract between the two packages: what a training export holds.

`osmf_pipelines` writes an export, `osmf_models` reads it, and neither knows more of the other than this file.
An export is a folder of Parquet shards and a `manifest.json` that is written last. Reading and writing Parquet,
decoding pictures and drawing batches do not belong here.

Tables of an export (columns in this order; pictures are PNG bytes, so that an export is self-contained):

| table | grain | columns |
|---|---|---|
| groups | one row per group, scope roots included | GROUP_COLUMNS |
| products | one row per product that has a cut-out | PRODUCT_COLUMNS |
| creatives | one row per creative that has a mask and a rate or a pair | CREATIVE_COLUMNS |
| generation_examples | one row per (group, creative) that was shown | EXAMPLE_COLUMNS |
| preference_pairs | one row per pair kept, scope roots included | PAIR_COLUMNS |
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

EXPORT_FORMAT = "osmf-training-export/2"
MANIFEST_NAME = "manifest.json"
RUN_RECORD_NAME = "run.json"
HEARTBEAT_NAME = "heartbeat.json"
HELD_OUT_GROUPS_NAME = "held_out_groups.json"  # how a model orders each group's pairs of held-out products
REFERENCE_NAME = "reference.json"  # what the reference of a preference run was, and the export that it learned from
SAMPLES_NAME = "samples"  # pictures of each group by steps: samples/step-0000300/SCOPE/GROUP.png
CHECKPOINTS_NAME = "checkpoints"
PICTURE_ENCODER_NAME = "broken-or-whole-1"  # what pictures are compared by; another fit of it is another name
CHECKPOINT_POINTER_NAME = "checkpoint.json"  # names the newest one
CHECKPOINT_PATTERN = "step-*"  # a stage has something to go on from once there is one

# Tags of a registered version: hashes over the model's own files, and over all that is registered, code too.
ARTIFACT_TAG, PACKAGE_TAG = "artifact_sha256", "package_sha256"
REGISTRY_FILES = ("registered_model_meta", "__pycache__")  # what fetching and loading add to a version's files

SPLITS = ("train", "validation", "test")

GROUP_COLUMNS = ("group_id", "scope", "is_scope_root", "description", "features")
PRODUCT_COLUMNS = ("product_id", "scope", "title", "price", "split", "cutout_png")
CREATIVE_COLUMNS = ("creative_id", "product_id", "image_png", "mask_png")
EXAMPLE_COLUMNS = ("group_id", "product_id", "creative_id", "log_rate_lift", "split")
PAIR_COLUMNS = (
    "group_id",
    "scope",
    "is_scope_root",
    "product_id",
    "chosen_creative_id",
    "rejected_creative_id",
    "chosen_better_probability",
    "log_rate_ratio",
    "is_contradiction",
    "split",
)
EXPORT_TABLES = {
    "groups": GROUP_COLUMNS,
    "products": PRODUCT_COLUMNS,
    "creatives": CREATIVE_COLUMNS,
    "generation_examples": EXAMPLE_COLUMNS,
    "preference_pairs": PAIR_COLUMNS,
}


GENERATED_NAME = "generated.parquet"  # what stage `generate` says of each picture asked for
GENERATED_COLUMNS = (
    "scope",
    "group_id",
    "is_scope_root",
    "product_id",
    "picture_path",
    "picture_sha256",
    "seed",
    "artifact_sha256",
    "num_inference_steps",
    "guidance_scale",
    "scene_distance",
    "clipped_share",
    "refusal",
)


@dataclass(frozen=True)
class ExportFile:
    """One shard of an export.

    Attributes:
        table: a key of `EXPORT_TABLES`.
        path: relative to the export's folder.
        num_rows: rows in the shard.
        num_bytes: size of the file.
        sha256: hex digest of the file's bytes.
    """

    table: str
    path: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class ExportManifest:
    """What an export holds and where it came from.

    Attributes:
        as_of_date: ISO date; the last day of logs behind the export.
        image_px: side of every picture, in pixels.
        group_feature_names: one name per entry of a group's feature vector (see `group_feature_names`).
        group_feature_mean: per entry, over the non-root groups; subtracted before the model sees the vector.
        group_feature_scale: per entry, standard deviation over the same groups, 1 where it is 0.
        table_versions: Delta table name to the version that was read.
        files: every shard.
        format: `EXPORT_FORMAT`.
    """

    as_of_date: str
    image_px: int
    group_feature_names: tuple[str, ...]
    group_feature_mean: tuple[float, ...]
    group_feature_scale: tuple[float, ...]
    table_versions: dict[str, int]
    files: tuple[ExportFile, ...]
    format: str = EXPORT_FORMAT

    @property
    def data_hash(self) -> str:
        """Hex digest over the shards' digests: two exports with the same hash hold the same data."""
        lines = sorted(f"{file.table} {file.path} {file.sha256}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Writes `manifest.json`, atomically; call it after every shard is in place."""
        temporary = folder / f".{MANIFEST_NAME}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1, sort_keys=True))
        temporary.replace(folder / MANIFEST_NAME)

    @classmethod
    def read(cls, folder: Path) -> ExportManifest:
        """Reads the manifest of the export in `folder`.

        Raises:
            ValueError: when there is none, or when it is of another format.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise ValueError(f"{folder} holds no finished training export (no {MANIFEST_NAME}): export again.")
        fields = json.loads(path.read_text())
        if fields.get("format") != EXPORT_FORMAT:
            raise ValueError(
                f"{path} is of format {fields.get('format')!r}, this version reads {EXPORT_FORMAT!r}: export again."
            )
        fields["files"] = tuple(ExportFile(**file) for file in fields["files"])
        for name in ("group_feature_names", "group_feature_mean", "group_feature_scale"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def group_feature_names(creative_feature_names: tuple[str, ...], attribute_bins: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a group's feature vector, in order (this project's own design).

    Args:
        creative_feature_names: names of the `d` creative features.
        attribute_bins: `attribute=value` for each bin of each user attribute, sorted.

    Returns:
        preference/se for each feature (its z-score), se for each feature, the mean features of the group's top and
        bottom exemplars, log number of users, then the share of users in each attribute bin.
    """
    return (
        *(f"preference_z:{name}" for name in creative_feature_names),
        *(f"preference_se:{name}" for name in creative_feature_names),
        *(f"top_exemplars:{name}" for name in creative_feature_names),
        *(f"bottom_exemplars:{name}" for name in creative_feature_names),
        "log_num_users",
        *(f"share:{name}" for name in attribute_bins),
    )
