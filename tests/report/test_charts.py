"""Where numbers lie on a chart, by hand."""

from __future__ import annotations

import math
import re

import pytest

from osmf_pipelines.report.charts import (
    Axes,
    Curve,
    bar_chart,
    calibration_chart,
    interval_strip,
    line_chart,
    strip_span,
    thinned,
)


def test_a_point_lies_where_its_share_of_the_axes_says() -> None:
    """The plot reaches from 46 to 322 across and from 166 up to 8."""
    axes = Axes((0.0, 10.0), (1.0, 3.0), "", "{}".format)
    assert axes.at(0.0, 1.0) == (46.0, 166.0)
    assert axes.at(10.0, 3.0) == (322.0, 8.0)
    assert axes.at(5.0, 2.0) == (184.0, 87.0)


def test_a_line_goes_through_its_points_and_tells_its_curves_apart() -> None:
    chart = line_chart(
        "loss <b>", [Curve("a & b", [(0, 1.0), (10, 2.0)]), Curve("c", [(0, 1.0)])], "step", "{:g}".format
    )
    (points,) = re.findall(r'points="([^" ]+ [^"]+)"', chart)
    first, last = ([float(one) for one in point.split(",")] for point in points.split(" "))
    assert (first[0], last[0]) == (46.0, 322.0)
    assert first[1] > last[1]  # upwards on the page is less
    assert "loss &lt;b&gt;" in chart
    assert chart.count('class="legend"') == 2
    assert 'stroke-dasharray="6 3"' in chart
    assert chart.count("<circle") == 1  # a curve of one point would not be seen


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(math.inf, 1)]])
def test_what_cannot_be_drawn_is_refused(points: list) -> None:
    with pytest.raises(ValueError, match="all of them finite"):
        line_chart("loss", [Curve("a", points)], "step", "{}".format)


def test_a_curve_without_spread_is_drawn() -> None:
    assert "nan" not in line_chart("flat", [Curve("a", [(1, 0.0), (2, 0.0)])], "step", "{:g}".format)


def test_bars_are_as_high_as_their_counts() -> None:
    chart = bar_chart("pairs", [0.9, 0.95, 1.0], [("all", [10, 20]), ("some", [0, 20])], "probability")
    drawn = re.findall(r'class="bar s\d" x="[\d.]+" y="[\d.]+" width="137" height="([\d.]+)"', chart)
    heights = [float(one) for one in drawn]  # of the bars, each 276 / 2 less a gap of 1 wide
    assert heights[0] * 2 == pytest.approx(heights[1], abs=0.1)
    assert heights[1:] == [heights[1], 0.0, heights[1]]


def test_probabilities_that_hold_lie_on_the_diagonal() -> None:
    """The plot is 276 by 158: on the diagonal x and y are the same share of them."""
    chart = calibration_chart("calibration", [(0.6, 0.6), (0.9, 0.9)], "claimed", "right")
    dots = re.findall(r'class="dot s0" cx="([\d.]+)" cy="([\d.]+)"', chart)
    for x, y in dots:
        assert (float(x) - 46) / 276 == pytest.approx((166 - float(y)) / 158, abs=1e-3)


def test_a_strip_is_on_the_scale_of_its_table() -> None:
    assert strip_span([-1.0, 3.0]) == (-1.0, 3.0)
    assert strip_span([2.0, 3.0]) == (0.0, 3.0)
    assert strip_span([]) == (0.0, 1.0)
    strip = interval_strip((1.0, 0.0, 2.0), (-1.0, 3.0), "up", "told")
    assert 'class="dot up" cx="75"' in strip  # half way
    assert 'x1="38.5" y1="9" x2="111.5"' in strip  # a quarter and three quarters of 146, from 2 on


def test_neighbours_are_averaged_where_there_are_too_many() -> None:
    assert thinned([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(1.5, 2.0), (3.0, 5.0)]
    assert thinned([(1, 1.0), (2, 3.0)], 2) == [(1, 1.0), (2, 3.0)]
