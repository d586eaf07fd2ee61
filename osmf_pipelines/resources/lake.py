"""The lake and the source, opened on first use, so that definitions load without Spark."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from osmf_pipelines.verdicts import Verdicts

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings
    from osmf_pipelines.sources.source import Source
    from osmf_pipelines.spark.lake import Lake

OnPhase = Callable[[str, str], None]


class LakeResource:
    """What data assets read from and publish to.

    Args:
        settings: where the lake and the source are.
        on_phase: told (phase, table) as each phase of a publication begins.
    """

    def __init__(self, settings: Settings, on_phase: OnPhase = lambda phase, table: None):
        self.settings = settings
        self.on_phase = on_phase
        self.verdicts = Verdicts(settings.home / "verdicts")

    @cached_property
    def lake(self) -> Lake:
        """The lake; starts Spark."""
        from osmf_pipelines.spark.lake import Lake
        from osmf_pipelines.spark.session import get_spark

        return Lake(get_spark(self.settings), self.settings.lake_root, self.settings.home / "locks", self.on_phase)

    @cached_property
    def source(self) -> Source:
        """The source that the settings name."""
        from osmf_pipelines.sources import open_source

        return open_source(self.settings)
