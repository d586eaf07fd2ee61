"""The gallery: rows are products, columns are groups, the one-size picture beside; under each its click rate."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isnan
from typing import Any

import pandas as pd

from osmf_pipelines.report.facts import ONE_SIZE, OWN, EvaluationFacts, Missing
from osmf_pipelines.report.layout import arm_name, missing, paragraph, percent, plural, section
from osmf_pipelines.report.markup import Content, Html, element, named

_OTHERS_FIRST = ("random", "best_single", "pretrained")


def gallery_section(evaluation: EvaluationFacts | Missing) -> Html:
    """Returns the pictures of held-out products that the gallery holds, category by category."""
    heading = "The pictures"
    gallery = evaluation if isinstance(evaluation, Missing) else evaluation.gallery
    if isinstance(evaluation, Missing) or isinstance(gallery, Missing):
        assert isinstance(gallery, Missing)
        return section("gallery", heading, missing(gallery))
    if OWN not in set(gallery.arm):
        return section("gallery", heading, missing(Missing("Group-DPO was not judged: there is nothing to show.")))
    under = (
        "Under each picture is its true click rate in that group, and that of the one-size picture there; under the "
        "one-size picture its mean over the groups."
        if evaluation.is_truth_known
        else "Under each picture is its lift over the product's logged pictures, as the group reward model predicts it."
    )
    parts: list[Content] = [
        paragraph(f"Products held out of training, drawn for each group from the same noise. {under}")
    ]
    left = evaluation.num_products - gallery.product_id.nunique()
    if left > 0:
        parts.append(element("p", f"{plural(left, 'more product')} judged, and not shown.", class_="fine"))
    scopes = dict.fromkeys(gallery.scope)
    drawn = [_Scope(gallery[gallery.scope == scope], evaluation).html(scope) for scope in scopes]
    parts.append(element("div", *drawn, class_="scopes"))
    return section("gallery", heading, *parts)


class _Scope:
    """One category of the gallery.

    Args:
        rows: of the gallery.
        evaluation: that it is of.
    """

    def __init__(self, rows: pd.DataFrame, evaluation: EvaluationFacts):
        self._evaluation = evaluation
        self._pictures = {(row.arm, row.product_id, row.group_id): row for row in rows.itertuples(index=False)}
        own = rows[rows.arm == OWN]
        self._groups = dict(zip(own.group_id, own.description, strict=True))
        self._products = dict(zip(own.product_id, own.title, strict=True))
        self._arms = list(dict.fromkeys(rows.arm))

    def html(self, scope: str) -> Html:
        """Returns the heading, the table, and the other arms' pictures of the first product, folded."""
        has_one_size = ONE_SIZE in self._arms
        header = [element("th", "product")]
        header += [element("th", "one size for all", class_="one-size")] if has_one_size else []
        header += [element("th", *self._words(text)) for text in self._groups.values()]
        body = [self._product_row(product_id, title, has_one_size) for product_id, title in self._products.items()]
        return element(
            "div",
            element("h3", named(scope)),
            _table(header, body),
            self._others(),
            class_="scope",
        )

    def _product_row(self, product_id: str, title: str, has_one_size: bool) -> Html:
        cells = [element("th", named(title or product_id))]
        if has_one_size:
            cells.append(element("td", self._one_for_all(ONE_SIZE, product_id), class_="one-size"))
        cells += [element("td", self._cell(OWN, product_id, group_id, ONE_SIZE)) for group_id in self._groups]
        return element("tr", *cells)

    def _others(self) -> Html | None:
        """What the other arms draw of the first product: what is logged, where it started, what could be."""
        arms = [arm for arm in self._arms if arm not in (OWN, ONE_SIZE)]
        arms.sort(key=lambda arm: _OTHERS_FIRST.index(arm) if arm in _OTHERS_FIRST else len(_OTHERS_FIRST))
        product_id = next(iter(self._products))
        rows = []
        for arm in arms:
            cells = [element("td", self._cell(arm, product_id, group_id, None)) for group_id in self._groups]
            rows.append(element("tr", element("th", arm_name(arm)), *cells))
        if not rows:
            return None
        header = [element("th", "pictures"), *(element("th", *self._words(text)) for text in self._groups.values())]
        told = element("summary", "The first product by the other arms")
        return element("details", told, _table(header, rows))

    def _one_for_all(self, arm: str, product_id: str) -> Html | None:
        """The picture that an arm draws for everyone, with the mean of what it is worth in each group."""
        found = [self._pictures[key] for group in self._groups if (key := (arm, product_id, group)) in self._pictures]
        if not found:
            return None
        worth = [value for one in found if (value := self._worth(one)) is not None]
        mean = sum(worth) / len(worth) if worth else None
        return _figure(found[0], [element("b", self._told(mean)), element("small", "on average")] if worth else [])

    def _cell(self, arm: str, product_id: str, group_id: str, other: str | None) -> Html | None:
        one = self._pictures.get((arm, product_id, group_id))
        if one is None:
            return element("small", "none")
        worth = self._worth(one)
        caption: list[Html] = [] if worth is None else [element("b", self._told(worth))]
        beside = None if other is None else self._pictures.get((other, product_id, group_id))
        theirs = None if beside is None else self._worth(beside)
        if worth is not None and theirs is not None:
            kind, mark = ("up", "▲") if worth > theirs else ("down", "▼") if worth < theirs else ("open", "=")
            caption.append(element("small", element("span", mark, class_=kind), f" one size {self._told(theirs)}"))
        return _figure(one, caption)

    def _worth(self, one: Any) -> float | None:
        """A picture's true click rate, or its predicted log lift where no truth is known."""
        if self._evaluation.is_truth_known:
            return None if isnan(one.true_ctr_rate) else float(one.true_ctr_rate)
        return self._evaluation.predicted.get((one.arm, one.group_id, one.product_id))

    def _told(self, worth: float | None) -> str:
        if worth is None or self._evaluation.is_truth_known:
            return percent(worth)
        return f"{exp(min(worth, 50.0)) - 1:+.0%}".replace("-", "−")

    def _words(self, description: str) -> list[Html]:
        people, *tastes = description.split("; ")
        return [named(people, 90), element("small", named("; ".join(tastes), 110), class_="block")]


def _table(header: Sequence[Html], rows: Sequence[Html]) -> Html:
    inner = element("table", element("thead", element("tr", *header)), element("tbody", *rows), class_="gallery")
    return element("div", inner, class_="wide fit", tabindex=0)


def _figure(one: Any, caption: Sequence[Content]) -> Html:
    image = element("img", src=one.picture, alt=f"{one.title}, {arm_name(one.arm)}", width=128, height=128)
    return element("figure", image, element("figcaption", *caption))
