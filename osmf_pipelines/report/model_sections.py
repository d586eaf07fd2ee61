"""The sections about models: training curves, lifts per group, ablations, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from osmf_pipelines.report.charts import MAX_CURVES, Curve, interval_strip, line_chart, strip_span, thinned
from osmf_pipelines.report.facts import (
    ONE_SIZE,
    OWN,
    START,
    AblationFacts,
    EvaluationFacts,
    GroupLiftFacts,
    Missing,
    TrainingLog,
    VerdictFacts,
)
from osmf_pipelines.report.layout import arm_name, missing, paragraph, percent, plural, points, section, table
from osmf_pipelines.report.markup import Content, Html, element, joined, named

# Charts of trainings: title, format, and (model, metric, label) of each curve.
_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Pretraining: error of the drawn scene",
        "{:.3g}",
        ((START, "train/generation_loss", "training"), (START, "held_out/generation_loss", "held-out products")),
    ),
    ("Pretraining: describing the group, nats a token", "{:.3g}", ((START, "train/comprehension_loss", ""),)),
    ("Pretraining: which picture does the group prefer?", "{:.3g}", ((START, "train/choice_loss", ""),)),
    (
        "Training pairs that the implicit reward orders rightly",
        "{:.0%}",
        ((OWN, "train/accuracy", "Group-DPO"), (ONE_SIZE, "train/accuracy", "global DPO")),
    ),
    (
        "Error on the chosen, beside the reference's",
        "{:.3g}",
        (
            (OWN, "train/chosen_error", "Group-DPO"),
            (OWN, "train/reference_chosen_error", "its reference"),
            (ONE_SIZE, "train/chosen_error", "global DPO"),
        ),
    ),
    (
        "Held-out pairs ordered rightly",
        "{:.0%}",
        ((OWN, "held_out/accuracy", "Group-DPO"), (ONE_SIZE, "held_out/accuracy", "global DPO")),
    ),
    (
        "Group reward model: loss",
        "{:.3g}",
        (("group_reward", "train/loss", "training"), ("group_reward", "validation/loss", "held-out products")),
    ),
)
_MAX_GROUPS = 60


def training_section(training: Sequence[TrainingLog] | Missing) -> Html:
    """Returns the curves of the trainings that there are."""
    heading = "Training"
    if isinstance(training, Missing):
        return section("training", heading, missing(training))
    logs = {log.model: log.metrics for log in training}
    charts = []
    for title, form, wanted in _CHARTS:
        curves = [
            Curve(label, thinned(found))
            for model, metric, label in wanted
            if (found := [(line["step"], line[metric]) for line in logs.get(model, ()) if metric in line])
        ]
        if curves:
            charts.append(line_chart(title, curves[:MAX_CURVES], "step", form.format))
    if not charts:
        return section("training", heading, missing(Missing("The trainings of this day logged no curves.")))
    more = paragraph("All metrics of all runs are in MLflow: ", element("code", "mlflow ui"), ", under Training runs.")
    return section("training", heading, element("div", *charts, class_="charts"), more)


def lifts_section(evaluation: EvaluationFacts | Missing, names: Mapping[str, str]) -> Html:
    """Returns how arms compare, and what Group-DPO adds in each group over the others.

    Args:
        evaluation: how models were judged.
        names: group_id to its description; the id stands for those that have none.
    """
    heading = "What came of it"
    if isinstance(evaluation, Missing):
        return section("lifts", heading, missing(evaluation))
    parts = [paragraph(_how_judged(evaluation)), _arms_table(evaluation)]
    others = [arm for arm in (ONE_SIZE, START, "champion") if arm in evaluation.lifts]
    if not others:
        parts.append(missing(Missing("Lifts per group need Group-DPO and an arm to compare it with; one is missing.")))
        return section("lifts", heading, *parts)
    parts.append(element("h3", "Lift of each group"))
    parts += [paragraph(claim(evaluation.lifts[arm], arm)) for arm in others]
    parts.append(_lift_table(evaluation, others, names))
    left = len(evaluation.lifts[others[0]]) - _MAX_GROUPS
    if left > 0:
        parts.append(element("p", f"{left:,} more groups are not shown; the counts above include them.", class_="fine"))
    return section("lifts", heading, *parts)


def _how_judged(evaluation: EvaluationFacts) -> str:
    held_out = f"On {plural(evaluation.num_products, 'product')} held out of training, each group counting the same"
    intervals = "intervals are 95%, by bootstrap over products."
    if evaluation.is_truth_known:
        return f"{held_out}: true click rates at position 1, an exact function of the picture; {intervals}"
    return (
        f"{held_out}: no truth is known here, so these are lifts over the logged pictures as the group reward model "
        f"predicts them; {intervals} Only an A/B test tells click rates."
    )


def _arms_table(evaluation: EvaluationFacts) -> Html:
    metrics = evaluation.metrics
    rows: list[list[Content]] = []
    for arm in evaluation.arms:
        name = element("strong" if arm == OWN else "span", arm_name(arm))
        if evaluation.is_truth_known:
            mean, worst = (percent(metrics.get(f"{arm}/{figure}")) for figure in ("mean_ctr", "worst_group_ctr"))
            headroom, quality = metrics[f"{arm}/share_of_headroom"], metrics[f"{arm}/picture_quality"]
            rows.append([name, mean, worst, f"{headroom:.0%}".replace("-", "−"), f"{quality:.2f}"])
        else:
            told = [metrics[f"{arm}/predicted_log_lift{end}"] for end in ("", "_low", "_high")]
            rows.append([name, "{:+.1%} ({:+.1%} to {:+.1%})".format(*(map(_relative, told)))])
    if evaluation.is_truth_known:
        return table(("pictures", "mean", "worst group", "of the head-room", "picture quality"), rows, range(1, 5))
    return table(("pictures", "predicted lift over the logged ones"), rows, (1,))


def claim(lifts: Sequence[GroupLiftFacts], other: str) -> str:
    """Returns in a sentence how many groups gain over another arm."""
    above = sum(one.value > 0 for one in lifts)
    lifted, lowered = (sum(getattr(one, name) for one in lifts) for name in ("is_lifted", "is_lowered"))
    return (
        f"Over {arm_name(other)}: {above} of {plural(len(lifts), 'group')} gain, {lifted} of them surely "
        f"(corrected for their number, Holm); {lowered} lose by an interval below 0 (not corrected, which "
        "would hide harm)."
    )


def _lift_table(evaluation: EvaluationFacts, others: Sequence[str], names: Mapping[str, str]) -> Html:
    shown = {arm: evaluation.lifts[arm][:_MAX_GROUPS] for arm in others}
    span = strip_span([end for lifts in shown.values() for one in lifts for end in (one.low, one.high)])
    told = _told_rate if evaluation.is_truth_known else _told_lift
    rows: list[list[Content]] = []
    for place, first in enumerate(shown[others[0]]):
        name = joined(
            element("small", named(first.scope)), element("br"), named(names.get(first.group_id, first.group_id))
        )
        own = percent(first.own) if evaluation.is_truth_known else f"{_relative(first.own):+.1%}"
        rows.append([name, own, *(_lift_cell(shown[arm][place], span, told) for arm in others)])
    header = ["group", "click rate" if evaluation.is_truth_known else "predicted lift"]
    unit = ", percentage points" if evaluation.is_truth_known else ""
    return table([*header, *(f"over {arm_name(arm)}{unit}" for arm in others)], rows, (1,), is_stacked=True)


def _lift_cell(one: GroupLiftFacts, span: tuple[float, float], told: Callable[[float], str]) -> Html:
    text = f"{told(one.value)} ({told(one.low)} to {told(one.high)})"
    kind, said = ("up", "▲ surely above") if one.is_lifted else ("down", "▼ below") if one.is_lowered else ("open", "")
    strip = interval_strip((one.value, one.low, one.high), span, kind, text)
    return element(
        "div", strip, element("span", text), element("span", said, class_=kind) if said else None, class_="lift"
    )


def _told_rate(value: float) -> str:
    return points(value)


def _told_lift(value: float) -> str:
    return f"{_relative(value):+.1%}".replace("-", "−")


def _relative(log_lift: float) -> float:
    """exp(x) - 1, kept finite."""
    return float(2.718281828459045 ** min(log_lift, 50.0)) - 1.0


def ablations_section(ablation: AblationFacts | Missing) -> Html:
    """Returns the table of an ablation."""
    heading = "Ablations"
    if isinstance(ablation, Missing):
        return section("ablations", heading, missing(ablation))
    told = (
        f"Recipe {ablation.recipe}, seeds {ablation.seeds}, market {ablation.markets}: a training of its own for every "
        "arm. 95% intervals by bootstrap over products, and over seeds and markets where there are several."
    )
    shown = table(ablation.header, ablation.rows, range(2, len(ablation.header)))
    return section("ablations", heading, paragraph(told), shown)


def verdict_section(verdict: VerdictFacts | Missing) -> Html:
    """Returns which version was registered, with which alias, and what the gate looked at."""
    heading = "The verdict"
    if isinstance(verdict, Missing):
        return section("verdict", heading, missing(verdict))
    against = "no champion was there" if verdict.champion is None else f"held against version {verdict.champion}"
    parts: list[Content] = [
        element("p", headline(verdict), class_="verdict " + ("up" if not verdict.reasons else "down")),
        paragraph(
            "Registered as version ", str(verdict.version), " of ", named(verdict.model_name), f"; {against}. ",
            "What it is now, and how it came to be, is in MLflow's registry and its audit trail.",
        ),
    ]  # fmt: skip
    if verdict.reasons:
        parts.append(element("ul", *(element("li", named(reason, 600)) for reason in verdict.reasons)))
    if verdict.figures:
        rows = [[named(name.replace("_", " ")), f"{value:.4g}"] for name, value in verdict.figures.items()]
        parts.append(table(("what the gate looked at", ""), rows, (1,)))
    return section("verdict", heading, *parts)


def headline(verdict: VerdictFacts) -> str:
    """Returns the verdict in a few words."""
    if verdict.reasons:
        return "The gate has refused it"
    if verdict.alias == "champion":
        return "It is the champion: what users see"
    return "It is the challenger: an A/B test or a person decides" if verdict.alias == "challenger" else "No alias"
