from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from market_export import write_group_cells, write_market_export

from osmf_models.model.gmllm import GMllm
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.recipes import tiny
from osmf_models.records import ExportManifest
from osmf_models.simulator.easy import easy_market
from osmf_models.simulator.market import Market, save_market
from osmf_models.training.manifest import file_sha256


@pytest.fixture(scope="session")
def market() -> Market:
    return easy_market(5, num_products_per_scope=6, num_creatives_per_product=3, num_users=1_000)


@pytest.fixture(scope="session")
def folders(market, tmp_path_factory) -> dict[str, Path]:
    """An export of the market whose groups are the planted segments, its truth, and two untrained models.

    The second says that it began with the first.
    """
    root = tmp_path_factory.mktemp("evaluation")
    save_market(market, root / "truth")
    write_market_export(market, root / "export")
    write_group_cells(market, root / "cells.parquet")
    for name, pair_groups in (("pretrained", "own"), ("global_dpo", "null")):
        write_untrained_model(root / "export", root / name, pair_groups)
    began_with = json.loads((root / "pretrained" / "run.json").read_text())["artifact_sha256"]
    (root / "global_dpo" / "reference.json").write_text(json.dumps({"pretrained_sha256": began_with}))
    return {path.stem: path for path in root.iterdir()}


def write_untrained_model(export: Path, folder: Path, pair_groups: str) -> None:
    manifest = ExportManifest.read(export)
    groups = pd.read_parquet(export / "groups.parquet")
    model = GMllm.build(tiny().model, manifest, list(groups.description))
    GroupAdPipeline.of(model).save_pretrained(folder / "model", safe_serialization=True)
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    lines = sorted(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in files)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    dpo = asdict(replace(tiny().dpo, pair_groups=pair_groups))
    record = {"config": {"dpo": dpo}, "artifact_sha256": digest}
    (folder / "run.json").write_text(json.dumps(record))
