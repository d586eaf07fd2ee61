from datetime import date

import numpy as np
import pytest

from osmf_pipelines.spark.place_effects import PlaceEffects, add_effective_impressions, fit_place_effects
from osmf_pipelines.tables import TABLES

DAYS = (date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3))


def _stats(spark, rows):
    """Rows of (day, creative, slot type, position, impressions, clicks)."""
    full = [
        (day, "shoes", "age=old", 0, "p1", creative, slot, pos, n, k, None) for day, creative, slot, pos, n, k in rows
    ]
    return spark.createDataFrame(full, TABLES["creative_stats"].ddl)


def test_planted_effects_are_recovered_though_good_creatives_stand_in_good_places(spark):
    rng = np.random.default_rng(0)
    examination = {("banner", 1): 0.4, ("feed", 1): 1.0, ("feed", 2): 0.6, ("feed", None): 0.2}
    day_factors = np.array([0.8, 1.0, 1.2])
    rows = []
    for creative in range(40):
        rate = 0.02 + 0.04 * creative / 40
        for rank, (place, examined) in enumerate(examination.items()):
            share = (1 + creative / 10) if rank == 1 else 1.0  # the better, the more often at the best place
            for day, factor in zip(DAYS, day_factors, strict=True):
                shown = int(5000 * share)
                clicked = int(rng.poisson(shown * rate * examined * factor))
                rows.append((day, f"c{creative:02}", *place, shown, clicked))

    effects = fit_place_effects(_stats(spark, rows))

    assert effects.examination_rates[("feed", 1)] == 1.0
    for place, examined in examination.items():
        assert effects.examination_rates[place] == pytest.approx(examined, rel=0.05)
    found = np.array([effects.day_factors[day] for day in DAYS])
    assert found == pytest.approx(day_factors, rel=0.03)


def test_one_place_and_no_clicks_leave_everything_as_it_is(spark):
    effects = fit_place_effects(_stats(spark, [(DAYS[0], "c1", "feed", 1, 100, 0)]))

    assert effects == PlaceEffects({("feed", 1): 1.0}, {DAYS[0]: 1.0})


def test_an_empty_window_is_refused(spark):
    with pytest.raises(ValueError, match="no creative_stats"):
        fit_place_effects(_stats(spark, []))


def test_effective_impressions_are_rounded_to_thousandths_and_nulls_are_places(spark):
    stats = _stats(spark, [(DAYS[0], "c1", "feed", 2, 10, 1), (DAYS[1], "c1", None, None, 7, 0)])
    effects = PlaceEffects({("feed", 2): 0.3333, (None, None): 0.5}, {DAYS[0]: 1.1, DAYS[1]: 1.0})

    rows = add_effective_impressions(stats, effects).orderBy("event_date").collect()

    assert [row["effective_impression_millis"] for row in rows] == [3666, 3500]


def test_a_place_that_was_not_fitted_fails(spark):
    stats = _stats(spark, [(DAYS[0], "c1", "feed", 9, 10, 1)])

    with pytest.raises(Exception, match="fit them again"):
        add_effective_impressions(stats, PlaceEffects({("feed", 1): 1.0}, {DAYS[0]: 1.0})).collect()
