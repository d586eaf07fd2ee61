"""The markets that `osmf ablate` learns from: an export in a home, and the truth that judges what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from osmf_models.records import MANIFEST_NAME, ExportManifest
from osmf_models.simulator.market import MARKET_FILE_NAME, load_market
from osmf_pipelines.bench.ablation_plan import fingerprint
from osmf_pipelines.settings import Settings


@dataclass(frozen=True)
class MarketFiles:
    """A simulated market's export as of a day, and what its models are judged by.

    Attributes:
        name: kind and seed of the market.
        home: of its lake.
        day: as of which.
        export: folder of the training export.
        data_hash: of the export.
        truth: folder of the market's truth.
        group_cells: Parquet of the cells of each group.
        agreeing_scopes: categories where all segments like the same.
    """

    name: str
    home: Path
    day: str
    export: Path
    data_hash: str
    truth: Path
    group_cells: Path
    agreeing_scopes: tuple[str, ...] = ()

    @property
    def judged_by(self) -> list[str]:
        """The options of a stage that judges by the truth."""
        return ["--data", str(self.export), "--truth", str(self.truth), "--group-cells", str(self.group_cells)]

    @property
    def fingerprint(self) -> str:
        """Names everything that judges a model, by its content."""
        contents = (self.truth / MARKET_FILE_NAME, self.group_cells)
        return fingerprint(self.data_hash, *(path.read_bytes().hex() for path in contents))

    @property
    def pretrained_folders(self) -> list[Path]:
        """Folders of the pretrainings that the home's own assets made as of the day."""
        return sorted((self.home / "models" / self.day).glob("pretrained_model-*"))


def open_markets(settings: Settings, homes: Sequence[Path], day: date | None, output: Path) -> list[MarketFiles]:
    """Returns the markets of several homes.

    Args:
        settings: of the present home, which is opened where no other is named.
        homes: to open; each has its lake, its logs and their truth where a home has them by default.
        day: as of which; None for the last of each.
        output: folder to write the groups' cells into.

    Raises:
        ValueError: when a home lacks an export or a truth, or two hold the same market.
    """
    own = {"lake": "", "source_path": Path(), "truth_path": Path()}
    each = [settings.model_copy(update={"home": home.absolute(), **own}) for home in homes] or [settings]
    markets = [_open_market(one, day, output) for one in each]
    for place, market in enumerate(markets):
        twin = next((one for one in markets[:place] if one.name == market.name), None)
        if twin is not None:
            raise ValueError(f"{twin.home} and {market.home} both hold market {market.name}: name one of them.")
    return markets


def _open_market(settings: Settings, day: date | None, output: Path) -> MarketFiles:
    found = [path.parent for path in (settings.home / "exports").glob(f"{day or '*'}/[!.]*/{MANIFEST_NAME}")]
    if not found:
        which = f"of {day} " if day else ""
        raise ValueError(
            f"{settings.home} has no training export {which}(exports/DAY/HASH/{MANIFEST_NAME}): run `osmf demo --only "
            "data` or the job form_pairs first."
        )
    # Of the last day the newest; that it is the published one is seen to where its groups are read.
    export = max(found, key=lambda folder: (folder.parent.name, (folder / MANIFEST_NAME).stat().st_mtime))
    export_day = export.parent.name
    data_hash, market = ExportManifest.read(export).data_hash, load_market(settings.truth_folder)
    name = f"{market.name}-{market.seed}"
    cells = output / "markets" / f"{name}-{data_hash[:12]}.parquet"
    if not cells.is_file():
        _write_group_cells(settings, date.fromisoformat(export_day), data_hash, cells)
    agreeing = tuple(scope.name for scope in market.scopes if scope.kind == "agreeing")
    return MarketFiles(name, settings.home, export_day, export, data_hash, settings.truth_folder, cells, agreeing)


def _write_group_cells(settings: Settings, day: date, data_hash: str, path: Path) -> None:
    """Reads the lake; starts Spark.

    Raises:
        ValueError: when the export is not the one that was published.
    """
    from osmf_pipelines.partitions import evidence_days
    from osmf_pipelines.resources.lake import LakeResource
    from osmf_pipelines.spark.group_cells import count_group_cells

    lake = LakeResource(settings).lake
    published = lake.read("training_export", (day,)).first()
    if published is None or published["data_hash"] != data_hash:
        raise ValueError(f"the training export of {day} in {settings.home} was not published: materialise it again.")
    shown = lake.read("creative_stats", evidence_days(day, settings.evidence_window_days))
    cells: Any = count_group_cells(lake.read("user_groups", (day,)), shown).toPandas()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    cells.to_parquet(temporary)
    temporary.replace(path)
