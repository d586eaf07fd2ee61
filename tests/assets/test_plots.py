"""Pictures of any data are small PNGs that say what they show, whatever the order of the numbers."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import date, timedelta

import pytest
from PIL import Image

from osmf_pipelines.assets.plots import (
    _bin_pairs,
    plot_ctr_by_position,
    plot_pair_probabilities,
    plot_truth,
    plot_volume_by_day,
    wilson_interval,
)

MAX_BYTES = 60_000
PLACES = [("feed", 1, 10_000, 300), ("feed", 2, 5_000, 90), ("search", 1, 2_000, 80)]
RATES = {("feed", 1): 1.0, ("feed", 2): 0.6, ("search", 1): 0.9}
DAYS = [(date(2026, 3, 1) + timedelta(days=day), 1_000 + day, 30) for day in range(28)]
MANY_PLACES = [(f"slot {slot}", at, 40_000 // at, 900 // at) for slot in range(7) for at in range(1, 41)]
MANY_SCOPES = [(f"category {at}", 0.9, 0.95) for at in range(2_000)]
PICTURES = {
    "places": plot_ctr_by_position(PLACES, RATES),
    "one place": plot_ctr_by_position([("feed", 1, 10_000, 300)], RATES),
    "no clicks": plot_ctr_by_position([("feed", 1, 100, 0), ("feed", 2, 10, 0)], RATES),
    "no rate for a place": plot_ctr_by_position(PLACES, {}),
    "no name": plot_ctr_by_position([(None, None, 100, 1), ("$\\$", 1, 100, 1)], {(None, None): 1.0}),
    "many places": plot_ctr_by_position(MANY_PLACES, {(slot, at): 1 / at for slot, at, *_ in MANY_PLACES}),
    "one pair": plot_pair_probabilities([(0.934, 1, 0)], 0.9, 0.066),
    "100k pairs": plot_pair_probabilities([(0.9 + at / 1000, 990, 40) for at in range(101)], 0.9, 0.05),
    "certain pairs": plot_pair_probabilities([(1.0, 5, 5)], 0.5, None),
    "against the truth": plot_truth([("shoe", 0.85, 0.97), ("mug", 0.98, 0.98)], [(0.55, 0.56, 900), (0.95, 0.94, 99)]),
    "thousands of scopes": plot_truth(MANY_SCOPES, [(0.95, 0.94, 100)]),
    "days": plot_volume_by_day(DAYS),
    "one day": plot_volume_by_day([(date(2026, 3, 1), 10, 0)]),
    "a year": plot_volume_by_day([(date(2025, 1, 1) + timedelta(days=at), 10**8, 10**6) for at in range(365)]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_small_and_of_one_width(name: str) -> None:
    picture = Image.open(io.BytesIO(PICTURES[name]))
    assert picture.format == "PNG"
    assert picture.width == 900
    assert len(PICTURES[name]) < MAX_BYTES
    assert len(picture.convert("RGB").getcolors(maxcolors=100_000) or []) > 10


@pytest.mark.parametrize(
    "empty", [plot_ctr_by_position([], {}), plot_pair_probabilities([], 0.9, None), plot_volume_by_day([])]
)
def test_without_data_a_line_says_so(empty: bytes) -> None:
    picture = Image.open(io.BytesIO(empty)).convert("L")
    assert picture.height < 200
    assert picture.getextrema()[0] < 100


def test_the_order_of_the_numbers_does_not_matter() -> None:
    assert plot_ctr_by_position(PLACES[::-1], RATES) == PICTURES["places"]
    assert plot_volume_by_day(DAYS[::-1]) == PICTURES["days"]


def test_clicks_rates_and_days_are_drawn() -> None:
    more_clicks = [*PLACES[:-1], ("search", 1, 2_000, 81)]
    assert plot_ctr_by_position(more_clicks, RATES) != PICTURES["places"]
    assert plot_ctr_by_position(PLACES, {**RATES, ("feed", 2): 0.7}) != PICTURES["places"]
    assert plot_volume_by_day(DAYS[:-1]) != PICTURES["days"]


def test_scopes_and_bins_that_are_not_drawn_are_told() -> None:
    bins = [(0.55, 0.56, 900), (0.95, 0.94, 100)]
    drawn = plot_truth(MANY_SCOPES[:12], bins)
    assert plot_truth([*MANY_SCOPES[:12], ("one more", 0.1, 0.2)], bins) != drawn
    assert plot_truth(MANY_SCOPES[:12], [*bins, (0.99, 0.5, 99)]) != drawn
    another = [*MANY_SCOPES[:12], ("one more", 0.3, 0.4)]
    assert plot_truth([*MANY_SCOPES[:12], ("one more", 0.1, 0.2)], bins) == plot_truth(another, bins)


def test_contradictions_and_the_expected_share_of_wrong_pairs_are_told() -> None:
    pictures = {
        plot_pair_probabilities([(0.95, 100, num_contradictions)], 0.9, wrong)
        for num_contradictions in (0, 20)
        for wrong in (None, 0.04, 0.05)
    }
    assert len(pictures) == 6


def test_pairs_fall_into_twenty_bins_from_the_minimum_to_one() -> None:
    """With 0.9 a bin is 0.005 wide; 0.8 lies under all of them and 1 on the last border: both at the ends."""
    bins = _bin_pairs([(0.8, 1), (0.9, 2), (0.904, 4), (0.905, 8), (0.994, 16), (0.995, 32), (1.0, 64)], 0.9)
    assert bins == [7, 8, *[0] * 16, 16, 96]


@pytest.mark.parametrize(
    ("num_clicks", "num_impressions", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 20, 0.0089, 0.2361), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval(num_clicks: int, num_impressions: int, low: float, high: float) -> None:
    """0 of 10 ends at z² / (n + z²) = 3.8416 / 13.8416; of 5 of 10 the middle is 0.5."""
    assert wilson_interval(num_clicks, num_impressions) == pytest.approx((low, high), abs=5e-5)


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, osmf_pipelines.assets.plots; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
