"""One adapter per log source; each yields the same raw event frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osmf_pipelines.settings import Settings
    from osmf_pipelines.sources.source import Source


def open_source(settings: Settings) -> Source:
    """Returns the source that the settings name.

    Raises:
        ValueError: when its mapping is missing or wrong; it names the file, the field and the remedy.
    """
    if settings.source == "open_bandit":
        from osmf_pipelines.sources.open_bandit import OpenBanditSource

        return OpenBanditSource(settings.home / "source")
    if settings.source == "table":
        from osmf_pipelines.sources.table import TableSource

        return TableSource(settings.drop_folder, settings.first_date)
    from osmf_pipelines.sources.files import FilesSource

    return FilesSource(settings.drop_folder)
