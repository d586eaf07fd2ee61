"""The page: its head, which allows nothing to run or load, the figures that matter most, and the sections.

The same facts give the same bytes. What is on it is read by the asset `report_page`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.resources import files

from osmf_pipelines.report.data_sections import groups_section, market_section, pairs_section
from osmf_pipelines.report.facts import ONE_SIZE, OWN, EvaluationFacts, Missing, ReportFacts
from osmf_pipelines.report.gallery_section import gallery_section
from osmf_pipelines.report.implicit_reward_section import implicit_reward_section
from osmf_pipelines.report.layout import percent, plural, points
from osmf_pipelines.report.markup import Html, element, joined
from osmf_pipelines.report.model_sections import (
    ablations_section,
    headline,
    lifts_section,
    training_section,
    verdict_section,
)

_NAVIGATION = {
    "market": "Market",
    "groups": "Groups",
    "pairs": "Pairs",
    "training": "Training",
    "gallery": "Pictures",
    "lifts": "Lifts",
    "unseen-pairs": "Unseen pairs",
    "ablations": "Ablations",
    "verdict": "Verdict",
}


def render(facts: ReportFacts) -> str:
    """Returns the whole page, to be written as UTF-8."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    title = f"OSMF report as of {facts.as_of_date}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=content_security_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )
    num_groups = None if isinstance(facts.market, Missing) else sum(one.num_groups for one in facts.market.scopes)
    sections = (
        market_section(facts.market),
        groups_section(facts.groups, num_groups),
        pairs_section(facts.pairs),
        training_section(facts.training),
        gallery_section(facts.evaluation),
        lifts_section(facts.evaluation, _names(facts)),
        implicit_reward_section(facts.evaluation),
        ablations_section(facts.ablation),
        verdict_section(facts.verdict),
    )
    links = [element("a", text, href=f"#{anchor}") for anchor, text in _NAVIGATION.items()]
    body = element(
        "body",
        element(
            "header",
            element("p", "One size, many fits", class_="over"),
            element("h1", f"Report as of {facts.as_of_date}"),
            element("div", *_cards(facts), class_="headlines"),
            element("nav", *links),
        ),
        element("main", *sections),
        element("footer", element("p", "Written by the asset report_page. This page runs nothing and loads nothing.")),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def content_security_policy(style: str) -> str:
    """Returns the policy: no script, nothing from elsewhere, pictures inside the page, and this one style sheet."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _names(facts: ReportFacts) -> dict[str, str]:
    """Descriptions of groups, by id."""
    names: dict[str, str] = {}
    if not isinstance(facts.evaluation, Missing) and not isinstance(facts.evaluation.gallery, Missing):
        gallery = facts.evaluation.gallery
        names |= dict(zip(gallery.group_id, gallery.description, strict=True))
    if not isinstance(facts.groups, Missing):
        names |= {group.group_id: group.description for group in facts.groups}
    return names


def _cards(facts: ReportFacts) -> Iterator[Html]:
    if not isinstance(facts.market, Missing):
        num_groups = sum(one.num_groups for one in facts.market.scopes)
        yield _card(f"{num_groups:,}", f"groups in {plural(len(facts.market.scopes), 'category', 'categories')}")
    if not isinstance(facts.pairs, Missing):
        both_ways = facts.pairs.num_contradictions
        yield _card(f"{facts.pairs.num_pairs:,}", f"pairs, {both_ways:,} contradicted by another group")
    if not isinstance(facts.evaluation, Missing):
        yield from _evaluation_cards(facts.evaluation)
    if not isinstance(facts.verdict, Missing):
        yield _card(facts.verdict.alias if not facts.verdict.reasons else "refused", headline(facts.verdict))


def _evaluation_cards(evaluation: EvaluationFacts) -> Iterator[Html]:
    metrics, pair = evaluation.metrics, f"{OWN}_minus_{ONE_SIZE}"
    if evaluation.is_truth_known and f"{OWN}/mean_ctr" in metrics:
        logged = percent(metrics.get("random/mean_ctr"))
        yield _card(percent(metrics[f"{OWN}/mean_ctr"]), f"true click rate of Group-DPO; logged pictures {logged}")
    if f"{pair}/mean_ctr" in metrics:
        low, high = (points(metrics[f"{pair}/ctr_{end}"]) for end in ("low", "high"))
        yield _card(points(metrics[f"{pair}/mean_ctr"]), f"points over one size for all ({low} to {high})")
    lifts = evaluation.lifts.get(ONE_SIZE, ())
    if lifts:
        above = sum(one.value > 0 for one in lifts)
        yield _card(f"{above} of {len(lifts)}", "groups gain over one size for all")


def _card(figure: str, what: str) -> Html:
    return element("div", element("b", figure), element("span", joined(what)), class_="headline")
