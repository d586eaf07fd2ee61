"""Pictures of the data, stored with a run: small PNGs, readable 600 pixels wide and without telling colours apart.

What is drawn was summed by Spark before: these functions take a few hundred numbers, never the rows of a table. How a
picture gets into Dagster belongs in `metadata`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[str | None, int | None]

# Okabe and Ito's colours, which everybody can tell apart; the markers say the same once more.
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_STYLES = ((_BLUE, "o"), (_ORANGE, "s"), ("#009E73", "^"), ("#CC79A7", "D"))
_MAX_POSITIONS = 12
_NUM_BINS = 20
_MAX_DAY_LABELS = 7
_MAX_SHORT_NAME, _MAX_NAME = 14, 34
_DPI = 150
_NUM_COLORS = 64
_MIN_COMPARISONS = 100
_MAX_SCOPES = 12
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    "text.parse_math": False,  # a slot type may hold a dollar sign
}


def plot_ctr_by_position(
    rows: Sequence[tuple[str | None, int | None, int, int]], examination_rates: Mapping[Place, float]
) -> bytes:
    """Returns a PNG: the click rate of each place with its 95% interval, and the examination rate fitted for it.

    The two differ where good creatives stand in good places. At most the 4 slot types shown most and their first 12
    positions are drawn; what is left out is told.

    Args:
        rows: (slot type, position, impressions, clicks) of each place.
        examination_rates: of each (slot type, position), relative to the place that has 1.
    """
    totals: dict[str | None, int] = {}
    for slot, _, impressions, _ in rows:
        totals[slot] = totals.get(slot, 0) + impressions
    slots = sorted(totals, key=lambda slot: (-totals[slot], slot or ""))[: len(_STYLES)]
    positions = sorted({row[1] for row in rows if row[0] in slots}, key=_order)[:_MAX_POSITIONS]
    drawn = [row for row in rows if row[0] in slots and row[1] in positions]

    def draw(figure: "Figure") -> None:
        observed, fitted = figure.subplots(1, 2)
        for number, slot in enumerate(slots):
            shift = 0.13 * (number - (len(slots) - 1) / 2)
            of_slot = sorted((row for row in drawn if row[0] == slot), key=lambda row: _order(row[1]))
            _draw_rates(observed, [(positions.index(row[1]) + shift, *row[2:]) for row in of_slot], number, _name(slot))
            rates = [
                (positions.index(row[1]) + shift, examination_rates[slot, row[1]])
                for row in of_slot
                if (slot, row[1]) in examination_rates
            ]
            color, marker = _STYLES[number]
            fitted.plot(*zip(*rates, strict=True), color=color, marker=marker, markersize=4, linewidth=1)
        observed.set_title("Click rate, 95% interval")
        _limit_rates(observed, [row[2:] for row in drawn])
        fitted.set_title("Examination rate ρ, fitted")
        fitted.set_ylim(bottom=0)
        for axis in (observed, fitted):
            axis.set_xticks(range(len(positions)), ["none" if at is None else str(at) for at in positions])
            axis.set_xlim(-0.6, len(positions) - 0.4)
            axis.set_xlabel("position in the slot, 1 is first")
        is_long = max(len(_name(slot)) for slot in slots) > _MAX_SHORT_NAME
        figure.legend(loc="outside upper left", ncols=2 if is_long else len(slots), handletextpad=0.2)
        if len(drawn) < len(rows):
            figure.supxlabel(f"{len(rows) - len(drawn)} more places are not drawn", fontsize=8)

    return _png(draw, 3.1) if drawn else _notice("no impressions")


def plot_pair_probabilities(
    counts: Sequence[tuple[float, int, int]], min_probability: float, expected_wrong_share: float | None
) -> bytes:
    """Returns a PNG: a histogram of how surely the chosen creative of the pairs kept is the better one.

    Args:
        counts: (probability rounded down to thousandths, pairs, contradictions among them).
        min_probability: from which on a pair is kept.
        expected_wrong_share: mean of 1 - probability over the pairs, or None where nothing is claimed of it.
    """
    num_pairs, num_contradictions = sum(row[1] for row in counts), sum(row[2] for row in counts)
    if num_pairs == 0:
        return _notice(f"no pairs: no comparison is sure with a probability of {min_probability:g}")
    all_pairs = _bin_pairs([row[:2] for row in counts], min_probability)
    contradictions = _bin_pairs([(row[0], row[2]) for row in counts], min_probability)
    wrong = "" if expected_wrong_share is None else f"; {expected_wrong_share:.1%} expected to be wrong"

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axis = figure.subplots()
        width = (1 - min_probability) / _NUM_BINS
        lefts = [min_probability + width * index for index in range(_NUM_BINS)]
        axis.bar(
            lefts, all_pairs, width, align="edge", color=_BLUE, edgecolor="white", linewidth=0.5, label="all pairs"
        )
        share = f"contradicted by another group: {num_contradictions / num_pairs:.1%}"
        axis.bar(lefts, contradictions, width, align="edge", color=_ORANGE, label=share)
        noun = "pair" if num_pairs == 1 else "pairs"
        axis.set_title(f"{num_pairs:,} {noun} kept at {min_probability:g} or more{wrong}")
        axis.set_xlim(min_probability, 1)
        axis.set_xlabel("probability that the chosen creative is the better one")
        axis.set_ylabel("pairs")
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_formatter(_count)
        figure.legend(loc="outside upper left", ncols=2)

    return _png(draw, 3.1)


def plot_volume_by_day(days: Sequence[tuple[date, int, int]]) -> bytes:
    """Returns a PNG: impressions of each day, and under them the click rate with its 95% interval.

    Args:
        days: (day, impressions, clicks), in any order; a day that is not given stays empty.
    """
    ordered = sorted(days)

    def draw(figure: "Figure") -> None:
        volume, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        at = [row[0].toordinal() for row in ordered]
        volume.bar(at, [row[1] for row in ordered], color=_BLUE, width=0.8)
        volume.set_title("Impressions by day")
        volume.yaxis.set_major_formatter(_count)
        _draw_rates(rate, [(x, *row[1:]) for x, row in zip(at, ordered, strict=True)], 1, "")
        rate.set_title("Click rate, 95% interval")
        _limit_rates(rate, [row[1:] for row in ordered])
        num_days = at[-1] - at[0] + 1
        step = -(-num_days // _MAX_DAY_LABELS)
        margin = 0.6 + max(_MAX_DAY_LABELS - num_days, 0) / 2
        rate.set_xlim(at[0] - margin, at[-1] + margin)
        labelled = range(at[0], at[-1] + 1, step)
        rate.set_xticks(labelled, [_day(date.fromordinal(x)) for x in labelled])
        rate.set_xlabel("day (UTC)")

    return _png(draw, 3.6) if ordered else _notice("no days")


def plot_truth(scopes: Sequence[tuple[str, float, float]], bins: Sequence[tuple[float, float, int]]) -> bytes:
    """Returns a PNG: what groups bring each scope, and whether probabilities hold.

    Args:
        scopes: (name, share of the best possible click rate with one choice for all, with the groups' choices); the
            first 12 are drawn.
        bins: (probability claimed, share of right pairs, comparisons); those under 100 are left out. What is left out
            is told.
    """
    of_scopes, of_bins = scopes[:_MAX_SCOPES], [one for one in bins if one[2] >= _MIN_COMPARISONS]
    left_out = [
        f"{number} more {name} are not drawn"
        for number, name in (
            (len(scopes) - len(of_scopes), "categories"),
            (len(bins) - len(of_bins), f"bins of under {_MIN_COMPARISONS} comparisons"),
        )
        if number
    ]

    def draw(figure: "Figure") -> None:
        shares, calibration = figure.subplots(1, 2)
        at = range(len(of_scopes))
        shares.scatter([one for _, one, _ in of_scopes], at, color=_ORANGE, marker="s", label="one for all")
        shares.scatter([groups for _, _, groups in of_scopes], at, color=_BLUE, marker="o", label="by group")
        shares.set_yticks(at, [_name(name) for name, _, _ in of_scopes])
        shares.xaxis.set_major_formatter(_percent)
        shares.set_title("Click rate of the best logged picture", fontsize=9)
        shares.set_xlabel("of each user's own best")
        shares.legend(loc="lower left", bbox_to_anchor=(0, 1.1), ncols=2)
        calibration.plot([0.5, 1], [0.5, 1], color="black", linewidth=0.6)
        calibration.plot([one[0] for one in of_bins], [one[1] for one in of_bins], color=_BLUE, marker="o")
        calibration.set_xlabel("probability claimed")
        calibration.set_ylabel("share of right pairs")
        calibration.set_title("Do probabilities hold?", fontsize=9)
        if left_out:
            figure.supxlabel("; ".join(left_out), fontsize=8)

    return _png(draw, 3.4)


def _bin_pairs(counts: Sequence[tuple[float, int]], min_probability: float) -> list[int]:
    """Pairs in each of 20 equal intervals from `min_probability` to 1; what lies on a border belongs above it."""
    bins = [0] * _NUM_BINS
    for probability, num_pairs in counts:
        index = int((probability - min_probability) / (1 - min_probability) * _NUM_BINS + 1e-6)
        bins[min(max(index, 0), _NUM_BINS - 1)] += num_pairs
    return bins


def wilson_interval(num_clicks: int, num_impressions: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the ends of Wilson's score interval of a rate, [0, 1] without impressions.

    Args:
        num_clicks: successes.
        num_impressions: trials.
        z: quantile of the normal distribution; 1.96 gives 95%.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if num_impressions == 0:
        return 0.0, 1.0
    n, p = num_impressions, num_clicks / num_impressions
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _draw_rates(axis: "Axes", points: Sequence[tuple[float, int, int]], number: int, label: str) -> None:
    """Click rates with intervals of (x, impressions, clicks)."""
    rates = [clicks / max(impressions, 1) for _, impressions, clicks in points]
    ends = [wilson_interval(clicks, impressions) for _, impressions, clicks in points]
    below = [rate - low for rate, (low, _) in zip(rates, ends, strict=True)]
    above = [high - rate for rate, (_, high) in zip(rates, ends, strict=True)]
    color, marker = _STYLES[number]
    xs = [x for x, _, _ in points]
    axis.errorbar(
        xs, rates, [below, above], color=color, marker=marker, markersize=4, linewidth=1, capsize=2, label=label
    )


def _limit_rates(axis: "Axes", counts: Sequence[tuple[int, int]]) -> None:
    """Ends the axis of the click rates of (impressions, clicks) where intervals do, but for those hardly shown."""
    enough = max(impressions for impressions, _ in counts) / 100
    top = 1.1 * max(
        wilson_interval(clicks, impressions)[1] if impressions >= enough else clicks / max(impressions, 1)
        for impressions, clicks in counts
    )
    axis.set_ylim(-0.04 * top, top)  # a marker at 0 is seen whole
    axis.yaxis.set_major_formatter(_percent)


def _png(draw: Callable[["Figure"], object], height: float) -> bytes:
    """A figure 6 inches wide as PNG with a palette, which is a third of the size."""
    import io

    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with rc_context(_STYLE):
        figure = Figure(figsize=(6, height), dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    picture = pixels.quantize(_NUM_COLORS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _notice(text: str) -> bytes:
    return _png(lambda figure: figure.text(0.5, 0.5, text, ha="center", va="center"), 1)


def _order(position: int | None) -> int:
    return -1 if position is None else position


def _name(slot: str | None) -> str:
    name = slot or "no slot type"
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


def _percent(value: float, _: float) -> str:
    return f"{value:.3g}%" if (value := 100 * value) else "0"


def _count(value: float, _: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.0f}"
