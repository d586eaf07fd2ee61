"""The sections about data: the market, the groups in words, the pairs and whether their probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from osmf_pipelines.report.charts import bar_chart, calibration_chart
from osmf_pipelines.report.facts import GroupFacts, MarketFacts, Missing, PairFacts, ScopeFacts
from osmf_pipelines.report.layout import count, missing, paragraph, plural, rate, section, signed, table
from osmf_pipelines.report.markup import Html, element, joined, named

_MAX_SCOPES = 24
_NUM_BINS = 20
_MIN_COMPARISONS = 100  # of a bin that is drawn
_CLEAR_Z = 2.0  # of a preference that is told from chance
_EVENTS = ("impression", "click")
_INGESTED = ("kept", "deduplicated", "quarantined")


def market_section(market: MarketFacts | Missing) -> Html:
    """Returns what was logged: events and what became of them, then category by category."""
    heading = "The market"
    if isinstance(market, Missing):
        return section("market", heading, missing(market))
    scopes = sorted(market.scopes, key=lambda one: (-one.num_impressions, one.scope))
    shown, clicked = (sum(getattr(one, name) for one in scopes) for name in ("num_impressions", "num_clicks"))
    days = f"Logs of {market.first_date} to {market.last_date} (UTC)" if market.first_date else "Logs of the window"
    told = (
        f"{days}: {plural(shown, 'exposure')} of {plural(sum(one.num_products for one in scopes), 'product')} in "
        f"{plural(len(scopes), 'category', 'categories')}, {count(clicked)} of them clicked ({rate(clicked, shown)})."
    )
    rows = [_scope_row(one) for one in scopes[:_MAX_SCOPES]]
    header = ("category", "products", "pictures", "users", "exposures", "clicks", "click rate", "groups")
    parts = [paragraph(told), table(header, rows, range(1, len(header)))]
    if len(scopes) > _MAX_SCOPES:
        parts.append(_left_out(len(scopes) - _MAX_SCOPES, "more categories, which were shown less"))
    events = market.num_events
    if events:
        parts += [element("h3", "Every event accounted for"), _ledger(events)]
    return section("market", heading, *parts)


def _scope_row(one: ScopeFacts) -> list[Html | str]:
    counts = (one.num_products, one.num_creatives, one.num_users, one.num_impressions, one.num_clicks)
    return [named(one.scope), *map(count, counts), rate(one.num_clicks, one.num_impressions), count(one.num_groups)]


def _ledger(events: Mapping[tuple[str, str], int]) -> Html:
    outcomes = list(dict.fromkeys(outcome for _, outcome in events))
    first = [one for one in _INGESTED if one in outcomes]
    later = sorted(one for one in outcomes if one not in first and any(events.get((kind, one)) for kind in _EVENTS))
    read = [sum(events.get((kind, outcome), 0) for outcome in first) for kind in _EVENTS]
    rows: list[list[str]] = [["read", *map(count, read)]] if first else []
    for outcome in (*first, *later):
        told = [events.get((kind, outcome)) for kind in _EVENTS]
        name = f"of those kept: {outcome}" if outcome in later else outcome
        rows.append([name.replace("_", " "), *("" if one is None else count(one) for one in told)])
    return table(("what became of them", "impressions", "clicks"), rows, (1, 2))


def groups_section(groups: Sequence[GroupFacts] | Missing, num_groups: int | None = None) -> Html:
    """Returns the groups in words, category by category.

    Args:
        groups: to show, those of one category beside each other.
        num_groups: that there are; None for those shown.
    """
    heading = "The groups, in words"
    if isinstance(groups, Missing):
        return section("groups", heading, missing(groups))
    told = (
        "A category is split where tastes differ and for no other reason; where they agree it stays one group. The "
        "figures beside a group are its preferences in standard errors: those from 2 on, above or below, are told from "
        "chance."
    )
    cards = []
    for _, of_scope in groupby(groups, key=lambda one: one.scope):
        own = list(of_scope)
        cards += [_group_card(group, number, len(own)) for number, group in enumerate(own, start=1)]
    parts = [paragraph(told), element("div", *cards, class_="cards")]
    left = (num_groups or 0) - len(groups)
    if left > 0:
        parts.append(_left_out(left, "more groups"))
    return section("groups", heading, *parts)


def _group_card(group: GroupFacts, number: int, num_groups: int) -> Html:
    people, *tastes = group.description.split("; ")
    numbers = (
        f"{plural(group.num_users, 'user')}, {plural(group.num_impressions, 'exposure')}, click rate "
        f"{rate(group.num_clicks, group.num_impressions)}"
    )
    liked = [
        element(
            "li",
            element("span", feature.replace("_", " ")),
            element("b", signed(z, 1)),
            class_="taste " + ("plain" if abs(z) < _CLEAR_Z else "liked" if z > 0 else "avoided"),
        )
        for feature, z in group.tastes
    ]
    return element(
        "article",
        element("p", element("b", named(group.scope)), f", group {number} of {num_groups}", class_="fine"),
        element("h4", named(people)),
        element("p", named("; ".join(tastes)), class_="tastes") if tastes else None,
        element("ul", *liked, class_="bars") if liked else None,
        element("p", numbers, class_="fine"),
        element(
            "details", element("summary", "Who belongs to it"), element("p", named(group.rule, 600)), class_="fine"
        ),
        class_="card",
    )


def pairs_section(pairs: PairFacts | Missing) -> Html:
    """Returns the pairs: how many, how sure, and whether their probabilities hold where the truth is known."""
    heading = "The pairs, and whether their probabilities hold"
    if isinstance(pairs, Missing):
        return section("pairs", heading, missing(pairs))
    if not pairs.num_pairs:
        why = f"No comparison of two pictures is sure with a probability of {pairs.min_probability:g}: no pairs."
        return section("pairs", heading, missing(Missing(why)))
    expected = sum(one.num_pairs * one.expected_wrong_share for one in pairs.by_scope) / pairs.num_pairs
    truth = "" if pairs.wrong_share is None else f"; by the truth {pairs.wrong_share:.1%} are"
    told = (
        f"{plural(pairs.num_pairs, 'pair')} “this group prefers this picture to that one” with a probability of "
        f"{pairs.min_probability:g} or more. {plural(pairs.num_contradictions, 'pair stands', 'pairs stand')} the "
        "other way round in another group of the same category: no single picture can please both. By their own "
        f"probabilities {expected:.1%} of the pairs are wrong{truth}."
    )
    charts = [_probability_chart(pairs)]
    bins = [one for one in pairs.calibration if one[2] >= _MIN_COMPARISONS]
    if bins:
        title = "Probability claimed, and share that is right"
        charts.append(
            calibration_chart(title, [(one[0], one[1]) for one in bins], "probability claimed", "share that is right")
        )
        note = "Calibration is over all comparisons of two pictures, kept or not."
    else:
        note = (
            "Whether probabilities hold can be seen only where the truth is known, on a simulated market: there the "
            "asset truth_report compares them. Here the expected share above is what the pairs say of themselves."
        )
    rows = [
        [named(one.scope), count(one.num_pairs), count(one.num_contradictions), f"{one.expected_wrong_share:.1%}"]
        for one in pairs.by_scope
    ]
    header = ("category", "pairs", "contradicted by another group", "expected to be wrong")
    parts = [element("div", *charts, class_="charts"), element("p", note, class_="fine")]
    shown = table(header, rows[:_MAX_SCOPES], (1, 2, 3))
    return section("pairs", heading, paragraph(told), *parts, shown)


def _probability_chart(pairs: PairFacts) -> Html:
    low = min([pairs.min_probability, *(row[0] for row in pairs.by_probability)])
    width = (1.0 - low) / _NUM_BINS
    bins = [[0] * _NUM_BINS, [0] * _NUM_BINS]
    for probability, *numbers in pairs.by_probability:
        place = min(max(int((probability - low) / width + 1e-6), 0), _NUM_BINS - 1)
        for of_kind, number in zip(bins, numbers, strict=True):
            of_kind[place] += number
    edges = [low + width * number for number in range(_NUM_BINS + 1)]
    bars = [("all pairs", bins[0]), ("contradicted by another group", bins[1])]
    return bar_chart("Pairs kept, by their probability", edges, bars, "probability that the chosen picture is better")


def _left_out(number: int, what: str) -> Html:
    return element("p", joined(f"{number:,} {what}, are not shown."), class_="fine")
