"""Pieces that every section is built of: tables, notes, numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Sequence

from osmf_pipelines.report.facts import Missing
from osmf_pipelines.report.markup import Content, Html, element

ARM_NAMES = {
    "random": "logged pictures, at random",
    "best_single": "best single picture for everyone",
    "pretrained": "pretrained",
    "global_dpo": "global DPO, one size for all",
    "group_dpo": "Group-DPO",
    "oracle": "best there is for each group (oracle)",
}


def section(anchor: str, heading: str, *body: Content) -> Html:
    """Returns a section of the page under its heading."""
    return element("section", element("h2", heading), *body, id=anchor)


def missing(value: Missing) -> Html:
    """Returns the note that stands in place of what is missing."""
    return element("p", value.why, class_="missing")


def paragraph(*parts: Content) -> Html:
    """Returns a paragraph of running text."""
    return element("p", *parts)


def table(
    header: Sequence[str], rows: Sequence[Sequence[Content]], numeric: Sequence[int] = (), *, is_stacked: bool = False
) -> Html:
    """Returns a table that scrolls by itself where it is wider than the page.

    Args:
        header: of the columns.
        rows: cells; markup stays, text is escaped.
        numeric: columns set to the right.
        is_stacked: on a narrow page a row's cells stand one under the other, each with its column's name.
    """

    def cells(name: str, row: Sequence[Content]) -> list[Html]:
        labels: Sequence[str | None] = header if is_stacked and name == "td" else [None] * len(header)
        return [
            element(name, cell, class_="number" if at in numeric else None, data_label=label)
            for at, (cell, label) in enumerate(zip(row, labels, strict=True))
        ]

    head = element("thead", element("tr", *cells("th", header)))
    body = element("tbody", *(element("tr", *cells("td", row)) for row in rows))
    return element(
        "div", element("table", head, body, class_="stacked" if is_stacked else None), class_="wide", tabindex=0
    )


def arm_name(arm: str) -> str:
    """Returns an arm's name as a reader sees it."""
    return ARM_NAMES.get(arm, arm.replace("_", " "))


def count(value: int) -> str:
    """Returns a count with its thousands set apart."""
    return f"{value:,}"


def rate(clicks: float, impressions: float) -> str:
    """Returns a click rate in per cent; a dash where nothing was shown."""
    return f"{clicks / impressions:.2%}" if impressions else "–"


def percent(value: float | None) -> str:
    """Returns a share in per cent; nothing for None."""
    return "" if value is None else f"{value:.2%}"


def points(value: float) -> str:
    """Returns a difference of click rates in percentage points, with its sign."""
    return signed(100 * value, 2)


def signed(value: float, num_digits: int) -> str:
    """Returns a number with its sign; none where it rounds to 0."""
    return f"{value:+.{num_digits}f}".replace("-", "−") if round(value, num_digits) else f"{0:.{num_digits}f}"


def plural(number: int, noun: str, plural_noun: str = "") -> str:
    """Returns a count with its noun."""
    return f"{number:,} {noun if number == 1 else plural_noun or noun + 's'}"
