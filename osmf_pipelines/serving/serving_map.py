"""What an ad server answers with: the picture of a product for the group of a user, from a day's `serving_map`.

    serving = ServingMap.read(Path("HOME/serving/2026-03-04.jsonl"))
    serving.picture_for({"age": "18-24", "city": "north"}, scope="shoes", product_id="p7")

Which group a user is in belongs in `assign.py`. Standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osmf_pipelines.serving.assign import Rules, assign_group, read_rules

PICTURE = "picture"


@dataclass(frozen=True)
class ServedPicture:
    """A picture to show.

    Attributes:
        path: of the PNG.
        sha256: of the file.
        group_id: the group of the user.
        drawn_for: the group that it was drawn for: the user's, or the scope's root where that has none of its own.
        model_version: in the registry.
    """

    path: str
    sha256: str
    group_id: str
    drawn_for: str
    model_version: int


@dataclass(frozen=True)
class ServingMap:
    """The rules and the pictures of one day.

    Attributes:
        rules: scope to its rules.
        pictures: (group, product) to its picture.
    """

    rules: Rules
    pictures: Mapping[tuple[str, str], ServedPicture]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> ServingMap:
        """Returns what the rows of `serving_map` of one day say.

        Raises:
            ValueError: when they are not all of one day, or not all there.
        """
        told = list(rows)
        days = sorted({str(row["as_of_date"]) for row in told})
        if len(days) != 1:
            raise ValueError(f"a serving map is of one day, and these rows are of {', '.join(days) or 'none'}.")
        pictures = {
            (row["group_id"], row["product_id"]): ServedPicture(
                row["picture_path"], row["picture_sha256"], row["group_id"], row["drawn_for"], row["model_version"]
            )
            for row in told
            if row["entry"] == PICTURE
        }
        return cls(read_rules(told), pictures)

    @classmethod
    def read(cls, path: Path) -> ServingMap:
        """Returns what the file of a day says, which lies in HOME/serving.

        Raises:
            ValueError: when it is not whole.
        """
        with path.open(encoding="utf-8") as lines:
            return cls.of(json.loads(line) for line in lines)

    def picture_for(self, attributes: Mapping[str, str | None], *, scope: str, product_id: str) -> ServedPicture | None:
        """Returns the picture of a product for a user; None where none was drawn, to be shown as before.

        Raises:
            ValueError: when an attribute that counts is no text.
        """
        group = assign_group(attributes, scope, self.rules)
        return None if group is None else self.pictures.get((group, product_id))
