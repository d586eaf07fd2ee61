"""`OSMF_SOURCE=files`: a drop folder with a folder of files per day, taken when its marker `_SUCCESS` is there.

The form of its `mapping.toml` is in `mapping.py`.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from osmf_pipelines.sources.mapped import MARKER_NAME, MappedSource, marker_of
from osmf_pipelines.sources.mapping import DATE
from osmf_pipelines.sources.read_files import is_hidden
from osmf_pipelines.sources.read_mapping import read_mapping


class FilesSource(MappedSource):
    """Logs in a drop folder.

    Args:
        folder: holds `mapping.toml`.

    Raises:
        ValueError: when the folder or its mapping is missing or wrong; it names the file, the field and the remedy.
    """

    def __init__(self, folder: Path):
        super().__init__(folder, read_mapping(folder, "files"))

    def days(self) -> list[date]:
        """Returns the days that have the markers of impressions and of clicks, oldest first.

        Raises:
            ValueError: when a marker lies in a folder that names no day.
        """
        return sorted(set.intersection(*[self._marked_days(files) for files in self._event_files()]))

    def delivery_of(self, day: date) -> str:
        """Returns time and size of the day's markers: writing a marker again is a new delivery.

        Raises:
            ValueError: when the day is not complete.
        """
        markers = sorted({marker_of(self.folder, files, day) for files in self._event_files()})
        try:
            stats = [marker.stat() for marker in markers]
        except FileNotFoundError as error:
            raise ValueError(f"day {day} is not complete: {error.filename} is missing.") from error
        return "_".join(f"{stat.st_mtime_ns}-{stat.st_size}" for stat in stats)

    def _event_files(self) -> tuple[str, str]:
        return str(self.mapping.impressions.files), str(self.mapping.clicks.files)

    def _marked_days(self, files: str) -> set[date]:
        before, after = (Path(files).parent / MARKER_NAME).as_posix().split(DATE)
        undated = self._undated_folders()
        days = set()
        for marker in self.folder.glob(f"{before}*{after}"):
            text = marker.relative_to(self.folder).as_posix().removeprefix(before).removesuffix(after)
            # Folders of other tables may lie beside the days, with markers of their own.
            if not is_hidden(Path(text)) and marker.parent not in undated:
                days.add(_day(text, marker.parent))
        return days

    def _undated_folders(self) -> set[Path]:
        sections = [getattr(self.mapping, name) for name in type(self.mapping).model_fields]
        patterns = [str(getattr(section, "files", None) or "") for section in sections]
        found = [path for text in patterns if text and DATE not in text for path in self.folder.glob(text)]
        return {folder for path in found for folder in (path, path.parent)}


def _day(text: str, folder: Path) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ValueError(
            f"{folder} holds {MARKER_NAME}, but {text!r} is no day: name it like 2026-03-02, or move it elsewhere."
        )
    return day
