"""Charts as SVG inside the page: lines, bars, and strips of intervals; their colours come from the page's style.

A line's dash says what its colour says. A chart is 340 units wide, about the pixels that a telephone gives it, so that
its text stays readable there. What is drawn is chosen in the sections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from osmf_pipelines.report.markup import Html, element, joined

Points = Sequence[tuple[float, float]]
Format = Callable[[float], str]
_WIDTH, _HEIGHT = 340.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 18.0, 8.0, 34.0
_DASHES = (None, "6 3", "2 3", "8 3 2 3")
MAX_CURVES = len(_DASHES)
_STRIP_WIDTH, _STRIP_HEIGHT = 150.0, 18.0


@dataclass(frozen=True)
class Curve:
    """A line of a chart: finite (x, y) in the order of x; marked where each point is one measurement.

    A reference is what the others are held against.
    """

    label: str
    points: Points
    is_marked: bool = False
    is_reference: bool = False


@dataclass(frozen=True)
class Axes:
    """Where numbers lie on a chart.

    Attributes:
        x: lowest and highest number drawn.
        y: the same upwards.
        x_label: under the chart.
        y_format: of the numbers beside it.
        x_format: of the numbers under it.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_format: Format
    x_format: Format = "{:,.6g}".format

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the place of a point."""
        across, up = _share(x, self.x), _share(y, self.y)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 2),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 2),
        )


def line_chart(title: str, curves: Sequence[Curve], x_label: str, y_format: Format) -> Html:
    """Returns a figure of at most 4 curves over a common x, with a legend where there are several.

    Raises:
        ValueError: when there is no point, one that is not finite, or too many curves.
    """
    points = [point for curve in curves for point in curve.points]
    if not points or not all(math.isfinite(value) for point in points for value in point):
        raise ValueError(f"chart {title!r} needs points, all of them finite.")
    axes = Axes(_span([x for x, _ in points], 0.0), _span([y for _, y in points]), x_label, y_format)
    return _figure(title, axes, [_line(axes, curve, number) for number, curve in enumerate(curves)], curves)


def calibration_chart(title: str, bins: Points, x_label: str, y_label: str) -> Html:
    """Returns a figure of shares found against shares claimed, with the diagonal on which they agree.

    Args:
        title: above it.
        bins: (claimed, found), both in [0, 1], at least one.
        x_label: of what is claimed.
        y_label: of what is found.
    """
    low = min(0.5, math.floor(10 * min(min(one) for one in bins)) / 10)
    axes = Axes((low, 1.0), (low, 1.0), x_label, "{:.0%}".format, "{:.0%}".format)
    curve = Curve(y_label, sorted(bins), is_marked=True)
    diagonal = Curve("where both agree", [(low, low), (1.0, 1.0)], is_reference=True)
    return _figure(title, axes, [_line(axes, diagonal, 1), _line(axes, curve, 0)], [curve, diagonal])


def bar_chart(title: str, edges: Sequence[float], bars: Sequence[tuple[str, Sequence[int]]], x_label: str) -> Html:
    """Returns a figure of counts in intervals; later kinds of bars are drawn over earlier ones, as a part of them.

    Args:
        title: above it.
        edges: of the intervals, rising, one more than there are intervals.
        bars: (label, count in each interval).
        x_label: of the intervals.
    """
    top = max((count for _, counts in bars for count in counts), default=0)
    axes = Axes((edges[0], edges[-1]), (0.0, max(top * 1.05, 1.0)), x_label, "{:,.0f}".format, "{:.0%}".format)
    drawn = []
    for number, (_, counts) in enumerate(bars):
        for start, end, count in zip(edges, edges[1:], counts, strict=False):
            (left, upper), (right, lower) = axes.at(start, count), axes.at(end, 0.0)
            size = {"x": left + 0.5, "y": upper, "width": round(right - left - 1.0, 2), "height": lower - upper}
            drawn.append(element("rect", class_=f"bar s{number}", **size))
    return _figure(title, axes, drawn, [Curve(label, []) for label, _ in bars], is_boxed=True)


def interval_strip(ends: tuple[float, float, float], span: tuple[float, float], kind: str, label: str) -> Html:
    """Returns a small picture of a figure and its interval beside 0, for a cell of a table.

    Args:
        ends: the figure, and the lower and upper end of its interval.
        span: the scale, the same in all cells of a table (`strip_span`).
        kind: up, down or open, which its colour says.
        label: what a screen reader says of it.
    """
    at, start, end, zero = (
        round(2.0 + _share(min(max(one, span[0]), span[1]), span) * (_STRIP_WIDTH - 4.0), 2) for one in (*ends, 0.0)
    )
    middle = _STRIP_HEIGHT / 2
    return element(
        "svg",
        _segment((zero, 0.0), (zero, _STRIP_HEIGHT), "reference"),
        _segment((start, middle), (end, middle), f"interval {kind}"),
        element("circle", class_=f"dot {kind}", cx=at, cy=middle, r=3.5),
        viewBox=f"0 0 {_STRIP_WIDTH:g} {_STRIP_HEIGHT:g}",
        class_="strip",
        role="img",
        aria_label=label,
    )


def strip_span(ends: Sequence[float]) -> tuple[float, float]:
    """Returns the scale on which all of these, and 0, are seen."""
    return min([0.0, *ends]), max([0.0, *ends]) if max([0.0, *ends]) > min([0.0, *ends]) else 1.0


def thinned(points: Points, max_points: int = 240) -> list[tuple[float, float]]:
    """Returns about as many points as a chart can show, each the mean of neighbours; all of them where they are few."""
    size = math.ceil(len(points) / max_points)
    if size <= 1:
        return list(points)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _figure(title: str, axes: Axes, drawn: Sequence[Html], curves: Sequence[Curve], *, is_boxed: bool = False) -> Html:
    svg = element(
        "svg",
        _grid(axes),
        *drawn,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=title,
    )
    legend = [_legend(curve, number, is_boxed) for number, curve in enumerate(curves)] if len(curves) > 1 else []
    return element(
        "figure",
        element("figcaption", element("span", title, class_="chart-title"), *legend),
        svg,
        class_="chart",
    )


def _grid(axes: Axes) -> Html:
    parts: list[Html] = []
    for tick in _ticks(*axes.y, 4):
        (left, y), (right, _) = axes.at(axes.x[0], tick), axes.at(axes.x[1], tick)
        parts.append(_segment((left, y), (right, y), "grid"))
        parts.append(element("text", axes.y_format(tick), x=left - 5, y=y + 3.5, text_anchor="end"))
    for tick in _ticks(*axes.x, 5):
        x, y = axes.at(tick, axes.y[0])
        parts.append(element("text", axes.x_format(tick), x=x, y=y + 14, text_anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", axes.x_label, x=middle, y=_HEIGHT - 4, text_anchor="middle"))
    return joined(*parts)


def _line(axes: Axes, curve: Curve, number: int) -> Html:
    places = [axes.at(*point) for point in curve.points]
    if curve.is_reference:
        return _segment(places[0], places[-1], "reference")
    points, dash = " ".join(f"{x:g},{y:g}" for x, y in places), _DASHES[number]
    line = element("polyline", class_=f"curve s{number}", points=points, stroke_dasharray=dash)
    is_marked = curve.is_marked or len(places) == 1
    dots = [element("circle", class_=f"dot s{number}", cx=x, cy=y, r=3.0) for x, y in places] if is_marked else []
    return joined(line, *dots)


def _legend(curve: Curve, number: int, is_boxed: bool) -> Html:
    kind, dash = ("reference", None) if curve.is_reference else (f"curve s{number}", _DASHES[number])
    mark = (
        element("rect", class_=f"bar s{number}", x=4, y=1, width=14, height=10)
        if is_boxed
        else element("line", class_=kind, x1=0, x2=22, y1=6, y2=6, stroke_dasharray=dash)
    )
    key = element("svg", mark, viewBox="0 0 22 12", class_="key", aria_hidden="true")
    return element("span", key, curve.label, class_="legend")


def _segment(start: tuple[float, float], end: tuple[float, float], kind: str) -> Html:
    return element("line", class_=kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])


def _share(value: float, span: tuple[float, float]) -> float:
    return (value - span[0]) / (span[1] - span[0])


def _span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Lowest and highest with a margin, a width around them where they are the same."""
    low, high = min(values), max(values)
    if low == high:
        width = abs(low) * 0.1 or 1.0
        return low - width, high + width
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between the ends."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]
