"""The section about pairs of held-out products: how each preference-trained model orders them, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

from osmf_pipelines.report.charts import calibration_chart
from osmf_pipelines.report.facts import OWN, EvaluationFacts, ImplicitRewardFacts, Missing
from osmf_pipelines.report.layout import arm_name, missing, paragraph, section, table
from osmf_pipelines.report.markup import Content, Html, element

_MIN_PAIRS = 5  # of a bin, to be drawn
_HEADER = ("model", "pairs ordered rightly", "of contradictions", "the same, groups shuffled", "calibration error")
_FIGURES = ("pair_accuracy", "contradiction_accuracy", "shuffled_contradiction_accuracy")


def implicit_reward_section(evaluation: EvaluationFacts | Missing) -> Html:
    """Returns a row of figures and a calibration chart for each model that has an implicit reward."""
    heading = "Pairs of unseen products"
    if isinstance(evaluation, Missing):
        return section("unseen-pairs", heading, missing(evaluation))
    if isinstance(evaluation.implicit_rewards, Missing):
        return section("unseen-pairs", heading, missing(evaluation.implicit_rewards))
    known = {arm: one for arm, one in evaluation.implicit_rewards.items() if one is not None}
    if not known:
        why = "No model here was trained on preferences beside the model that it began with."
        return section("unseen-pairs", heading, missing(Missing(why)))
    told = (
        "Which of two logged pictures a group prefers, on products held out of training. A model prefers the one that "
        "its training made likelier, against the model that it began with. Of a contradiction, two pictures that two "
        "groups order oppositely, who does not know the group is right on exactly half; so is, about, who is told of "
        "a group drawn at random. Pairs come from logs: no truth is needed. Intervals are 95%, by bootstrap over "
        "products."
    )
    rows = [_row(arm, one) for arm, one in known.items()]
    parts: list[Content] = [paragraph(told), table(_HEADER, rows, range(1, len(_HEADER)), is_stacked=True)]
    charts = _charts(known)
    if charts:
        note = (
            "The label is the one that the model was trained on, for one size for all that of everyone's pairs. Bins "
            f"of fewer than {_MIN_PAIRS} pairs are not drawn."
        )
        parts += [element("div", *charts, class_="charts"), element("p", note, class_="fine")]
    return section("unseen-pairs", heading, *parts)


def _row(arm: str, one: ImplicitRewardFacts) -> list[Content]:
    error = one.figures.get("calibration_error")
    name = element("strong" if arm == OWN else "span", arm_name(arm))
    return [name, *(_share(one.figures, figure) for figure in _FIGURES), "–" if error is None else f"{error:.3f}"]


def _share(figures: Mapping[str, float], name: str) -> str:
    """A share with its interval; a dash without pairs to tell it by."""
    if name not in figures:
        return "–"
    return f"{figures[name]:.2f} ({figures[f'{name}_low']:.2f} to {figures[f'{name}_high']:.2f})"


def _charts(known: Mapping[str, ImplicitRewardFacts]) -> list[Html]:
    charts = []
    for arm, one in known.items():
        points = [(claimed, label) for claimed, label, num_pairs in one.calibration if num_pairs >= _MIN_PAIRS]
        if points:
            title = f"{arm_name(arm)}: how sure of its order"
            charts.append(calibration_chart(title, points, "probability that it gives to its order", "label, mean"))
    return charts
