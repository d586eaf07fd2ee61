from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from datetime import date

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from osmf_models.simulator.events import DAY_MICROS, Impressions, Shop, draw_impressions, open_shop, rates_of_day
from osmf_models.simulator.mess import CLEAN, CLICK_KINDS, IMPRESSION_KINDS, UNDELIVERED, USUAL, Mess
from osmf_models.simulator.serving import Serving
from osmf_models.simulator.wrong_events import (
    NEVER,
    ImpressionRows,
    click_rows,
    count_clicks,
    count_impressions,
    deliveries,
    impression_rows,
)

PER_DAY = 200_000
RIGHT = Mess(duplicate_share=0.0)
LOUD = Mess(
    duplicate_share=0.1,
    redelivered_share=0.1,
    late_share=0.5,
    double_click_share=0.1,
    malformed_share=0.02,
    conflict_share=0.02,
    orphan_share=0.02,
    skewed_share=0.02,
    outside_share=0.02,
    num_bots=2,
)


@pytest.fixture(scope="module")
def shop(market) -> Shop:
    return open_shop(market, 9, date(2026, 3, 1), PER_DAY)


@pytest.fixture(scope="module")
def days(shop) -> list[Impressions]:
    num_products = len(shop.market.products)
    serving = Serving(np.full((num_products, 1, 4), 0.25), np.ones(4 * num_products, np.int64), 0.0)
    return [
        draw_impressions(shop, rates_of_day(shop, day), serving, day * PER_DAY + np.arange(PER_DAY)) for day in range(2)
    ]


def of_kind(rows, kind):
    kinds = list(IMPRESSION_KINDS if isinstance(rows, ImpressionRows) else CLICK_KINDS)
    which = rows.kind == kinds.index(kind)
    return replace(rows, **{field.name: getattr(rows, field.name)[which] for field in fields(rows)})


def ids(rows):
    letters = np.array(list((IMPRESSION_KINDS if isinstance(rows, ImpressionRows) else CLICK_KINDS).values()))
    return list(zip(letters[rows.kind].tolist(), rows.number.tolist(), strict=True))


def assert_same(one, other, without=()):
    for field in fields(one):
        if field.name not in without:
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def assert_share(count, total, share):
    assert binomtest(count, total, share).pvalue > 1e-4, (count, total, share)


def test_usual_impressions_go_wrong_in_the_shares_planted(shop, days):
    counts = count_impressions(impression_rows(shop, USUAL, days[0], 0))
    assert set(counts) == set(IMPRESSION_KINDS)
    assert counts["impression"] == PER_DAY
    assert counts["impression shown to a bot"] == 3 * 1_500
    assert_share(counts["impression delivered twice"], PER_DAY, 0.002)
    assert_share(counts["impression delivered again a day later"], PER_DAY, 0.0005)
    for kind in ("without a user", "of an unknown creative", "at position 0"):
        assert_share(counts[f"impression {kind}"], PER_DAY, 0.0007)
    assert counts["impression told in two ways"] % 2 == 0
    assert_share(counts["impression told in two ways"] // 2, PER_DAY, 0.0005)
    assert_share(counts["impression by a wrong clock"], PER_DAY, 0.0003)


def test_usual_clicks_go_wrong_in_the_shares_planted(shop, days):
    num_clicks = int(days[0].is_clicked.sum())
    counts = {kind: sum(ages.values()) for kind, ages in count_clicks(click_rows(shop, USUAL, days[0], 0)).items()}
    assert set(counts) == set(CLICK_KINDS)
    assert counts["click"] == num_clicks
    assert_share(counts["click delivered twice"], num_clicks, 0.002)
    assert_share(counts["click delivered again a day later"], num_clicks, 0.0005)
    assert_share(counts["second click on an impression"], num_clicks, 0.01)
    assert_share(counts["click of a bot"], 3 * 1_500, 0.2)
    assert_share(counts["click without an impression"], PER_DAY, 0.0003)
    assert_share(counts["click before its impression"], PER_DAY, 0.0003)
    assert_share(counts["click a day after its impression"], PER_DAY, 0.0001)
    assert_share(counts["click without an impression id"], num_clicks, 0.0007)
    assert counts["click told in two ways"] % 2 == 0
    assert_share(counts["click told in two ways"] // 2, num_clicks, 0.0005)


def test_a_clean_log_has_nothing_wrong(shop, days):
    assert set(count_impressions(impression_rows(shop, CLEAN, days[0], 0))) == {"impression"}
    assert set(count_clicks(click_rows(shop, CLEAN, days[0], 0))) == {"click"}


def test_a_right_log_is_the_events_themselves(shop, days):
    rows, clicks = impression_rows(shop, RIGHT, days[1], 1), click_rows(shop, RIGHT, days[1], 1)
    for name in ("number", "user", "creative", "position", "propensity", "micros"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(days[1], name))
    assert set(rows.day_index.tolist()) == {1}
    np.testing.assert_array_equal(clicks.number, days[1].number[days[1].is_clicked])
    np.testing.assert_array_equal(clicks.micros, days[1].clicked_micros[days[1].is_clicked])
    assert set(clicks.impression_letter.tolist()) == {ord("i")}


def test_right_rows_are_the_same_whatever_else_goes_wrong(shop, days):
    loud = impression_rows(shop, LOUD, days[0], 0)
    assert_same(of_kind(loud, "impression"), impression_rows(shop, RIGHT, days[0], 0))
    clicks = of_kind(click_rows(shop, LOUD, days[0], 0), "click")
    assert_same(clicks, click_rows(shop, RIGHT, days[0], 0), without=("day_index", "age_days"))


def test_an_id_is_told_again_by_the_kinds_that_repeat_alone(shop, days):
    for rows, repeating in (
        (impression_rows(shop, LOUD, days[0], 0), {"i": 3, "x": 2}),
        (click_rows(shop, LOUD, days[0], 0), {"c": 3, "z": 2}),
    ):
        times = Counter(ids(rows))
        most = {letter: 0 for letter, _ in times}
        for (letter, _), count in times.items():
            most[letter] = max(most[letter], count)
        assert most == {letter: repeating.get(letter, 1) for letter in most}
        assert min(count for (letter, _), count in times.items() if letter in ("x", "z")) == 2


def test_what_is_delivered_twice_or_again_is_the_same_row(shop, days):
    for rows, name in (
        (impression_rows(shop, LOUD, days[0], 0), "impression"),
        (click_rows(shop, LOUD, days[0], 0), "click"),
    ):
        right = of_kind(rows, name)
        for kind, days_later in ((f"{name} delivered twice", 0), (f"{name} delivered again a day later", 1)):
            repeated = of_kind(rows, kind)
            places = np.searchsorted(right.number, repeated.number)
            original = replace(right, **{field.name: getattr(right, field.name)[places] for field in fields(right)})
            assert_same(repeated, original, without=("kind", "day_index", "age_days"))
            np.testing.assert_array_equal(repeated.day_index, original.day_index + days_later)


def test_wrong_impressions_are_wrong_in_the_way_named(shop, days):
    rows = impression_rows(shop, LOUD, days[1], 1)
    first = PER_DAY
    assert (of_kind(rows, "impression without a user").user == -1).all()
    assert (of_kind(rows, "impression at position 0").position == 0).all()
    unknown = of_kind(rows, "impression of an unknown creative")
    np.testing.assert_array_equal(-1 - unknown.creative, days[1].creative[unknown.number - first])
    wrong_clock = of_kind(rows, "impression by a wrong clock")
    np.testing.assert_array_equal(wrong_clock.micros, days[1].micros[wrong_clock.number - first] + DAY_MICROS)
    assert set(wrong_clock.day_index.tolist()) == {1}
    told = of_kind(rows, "impression told in two ways")
    one, other = told.position[: len(told.number) // 2], told.position[len(told.number) // 2 :]
    np.testing.assert_array_equal(other, one + 1)


def test_wrong_clicks_are_wrong_in_the_way_named(shop, days):
    rows = click_rows(shop, LOUD, days[1], 1)
    for kind, letter in (
        ("click without an impression", "o"),
        ("click of a bot", "b"),
        ("click before its impression", "i"),
        ("click a day after its impression", "i"),
        ("second click on an impression", "i"),
    ):
        assert set(of_kind(rows, kind).impression_letter.tolist()) == {ord(letter)}
    assert "o" not in IMPRESSION_KINDS.values()
    assert set(of_kind(rows, "click without an impression id").impression_letter.tolist()) == {0}
    early, outside = of_kind(rows, "click before its impression"), of_kind(rows, "click a day after its impression")
    assert (early.micros < days[1].micros[early.number - PER_DAY]).all()
    assert (outside.micros > days[1].micros[outside.number - PER_DAY] + DAY_MICROS).all()
    second = of_kind(rows, "second click on an impression")
    assert (second.micros > days[1].clicked_micros[second.number - PER_DAY]).all()
    told = of_kind(rows, "click told in two ways")
    half = len(told.number) // 2
    np.testing.assert_array_equal(told.number[:half], told.number[half:])
    assert (told.micros[:half] != told.micros[half:]).all()


def test_every_bot_sees_more_than_a_thousand_pictures_a_day_and_is_no_user(shop, days):
    bots = [
        of_kind(impression_rows(shop, LOUD, events, day), "impression shown to a bot")
        for day, events in enumerate(days)
    ]
    counts = Counter(np.concatenate([rows.user for rows in bots]).tolist())
    assert len(counts) == 4
    assert min(counts.values()) > 1_000
    assert min(counts) >= shop.market.population.num_users
    seen = {("b", number) for rows in bots for number in rows.number.tolist()}
    clicks = of_kind(click_rows(shop, LOUD, days[0], 0), "click of a bot")
    assert {("b", number) for number in clicks.number.tolist()} <= seen


def test_half_of_a_half_day_is_withheld_and_nothing_of_another_day(shop, days):
    mess = replace(RIGHT, half_days=(1,))
    assert_same(impression_rows(shop, mess, days[0], 0), impression_rows(shop, RIGHT, days[0], 0))
    rows = impression_rows(shop, mess, days[1], 1)
    assert_same(rows, impression_rows(shop, RIGHT, days[1], 1), without=("day_index",))
    assert set(rows.day_index.tolist()) == {NEVER, 1}
    assert_share(int((rows.day_index == NEVER).sum()), PER_DAY, 0.5)


def test_clicks_of_a_half_day_are_withheld_with_their_impressions_and_later_ones_told_as_such(shop, days):
    mess, whole = replace(RIGHT, late_share=0.2, half_days=(1,)), replace(RIGHT, late_share=0.2)
    shown, clicks = impression_rows(shop, mess, days[1], 1), click_rows(shop, mess, days[1], 1)
    is_withheld = np.isin(clicks.number, shown.number[shown.day_index == NEVER])
    assert_share(int(is_withheld.sum()), len(is_withheld), 0.5)
    otherwise = click_rows(shop, whole, days[1], 1)
    np.testing.assert_array_equal(
        clicks.day_index, np.where(is_withheld & (otherwise.day_index == 1), NEVER, otherwise.day_index)
    )
    of_later_days = [part for day, _, part in deliveries(clicks, 1) if day > 1]
    counted = [{kind: sum(ages.values()) for kind, ages in count_clicks(part).items()} for part in of_later_days]
    is_later = is_withheld & (otherwise.day_index > 1)
    assert is_later.sum() > 100
    assert sum(counts[UNDELIVERED] for counts in counted) == is_later.sum()
    assert sum(counts["click"] for counts in counted) == (~is_withheld & (otherwise.day_index > 1)).sum()


def test_on_a_missing_day_every_click_on_an_impression_is_one_on_an_undelivered_impression(shop, days):
    mess = replace(LOUD, missing_days=(1,))
    counts = count_clicks(click_rows(shop, mess, days[1], 1))
    never_attributed = {
        "click delivered twice",
        "click without an impression",
        "click without an impression id",
        "click told in two ways",
    }
    assert set(counts) == never_attributed | {UNDELIVERED}
    assert UNDELIVERED not in count_clicks(click_rows(shop, mess, days[0], 0))


@pytest.mark.parametrize("mess", [LOUD, replace(LOUD, half_days=(1,)), replace(LOUD, missing_days=(1,))])
def test_a_click_is_told_as_one_on_an_undelivered_impression_when_it_is_one(shop, days, mess):
    rows, clicks = impression_rows(shop, mess, days[1], 1), click_rows(shop, mess, days[1], 1)
    is_delivered = ~np.isin(rows.day_index, (NEVER, *mess.missing_days))
    for kind in ("impression", "impression shown to a bot"):
        letter = ord(IMPRESSION_KINDS[kind])
        which = [place for place, found in enumerate(IMPRESSION_KINDS.values()) if ord(found) == letter]
        delivered = rows.number[is_delivered & np.isin(rows.kind, which)]
        of_letter = clicks.impression_letter == letter
        is_told = clicks.is_undelivered[of_letter]
        np.testing.assert_array_equal(is_told, ~np.isin(clicks.number[of_letter], delivered), err_msg=kind)


def test_after_a_missing_day_a_click_that_comes_again_comes_for_the_first_time(shop, days):
    mess = replace(RIGHT, redelivered_share=0.3, late_share=0.5, missing_days=(1,))
    clicks = click_rows(shop, mess, days[0], 0)
    is_delivered = clicks.day_index != 1
    first, again = (of_kind(clicks, kind) for kind in ("click", "click delivered again a day later"))
    assert max(Counter(clicks.number[is_delivered & (clicks.kind == 0)].tolist()).values()) == 1
    assert set(again.number[again.day_index != 1].tolist()) <= set(first.number[first.day_index != 1].tolist())
    assert len(first.number) > days[0].is_clicked.sum()


def test_the_age_of_a_click_is_the_day_of_its_log_less_the_day_of_its_impression(shop, days):
    for day in (0, 1):
        rows = click_rows(shop, LOUD, days[day], day)
        np.testing.assert_array_equal(rows.age_days, rows.day_index - day)
        assert (rows.day_index >= (rows.micros - shop.midnight_micros(0)) // DAY_MICROS).all()
        assert (of_kind(rows, "click a day after its impression").age_days >= 1).all()


def test_late_clicks_come_one_to_four_days_late_in_the_shares_stated(shop, days):
    clicks = of_kind(click_rows(shop, replace(RIGHT, late_share=0.5), days[0], 0), "click")
    late_days = clicks.day_index - (clicks.micros - shop.midnight_micros(0)) // DAY_MICROS
    counts = np.bincount(late_days, minlength=5)
    assert_share(int(counts[1:].sum()), len(late_days), 0.5)
    assert len(counts) == 5
    assert chisquare(counts[1:], counts[1:].sum() * np.array([0.70, 0.20, 0.07, 0.03])).pvalue > 0.001


def test_counts_leave_no_row_out(shop, days):
    for mess in (CLEAN, LOUD, replace(LOUD, half_days=(0,)), replace(LOUD, missing_days=(0,))):
        rows, clicks = impression_rows(shop, mess, days[0], 0), click_rows(shop, mess, days[0], 0)
        assert sum(count_impressions(rows).values()) == len(rows.number)
        by_age = Counter()
        for ages in count_clicks(clicks).values():
            by_age.update(ages)
        assert by_age == Counter(clicks.age_days.astype(str).tolist())


def test_rows_come_with_the_file_of_their_day_and_what_comes_twice_in_another(shop, days):
    rows = impression_rows(shop, LOUD, days[0], 0)
    parts = list(deliveries(rows, 0))
    assert [(day, part) for day, part, _ in parts] == [(0, ""), (0, "-again"), (1, "")]
    assert sum(len(part.number) for _, _, part in parts) == len(rows.number)
    for day, part, of_day in parts:
        assert set(of_day.day_index.tolist()) == {day}
        assert ("impression delivered twice" in count_impressions(of_day)) == (part == "-again")
        told_apart = [key for key in ids(of_day) if key[0] != "x"]
        assert len(set(told_apart)) == len(told_apart)


def test_a_day_without_rows_is_delivered_empty(shop, days):
    nothing = replace(days[0], **{field.name: getattr(days[0], field.name)[:0] for field in fields(Impressions)})
    for rows in (impression_rows(shop, LOUD, nothing, 0), click_rows(shop, LOUD, nothing, 0)):
        ((day, part, none),) = deliveries(rows, 0)
        assert (day, part, len(none.number)) == (0, "", 0)


def test_the_letters_of_ids_tell_right_rows_from_wrong_ones():
    for kinds, right in ((IMPRESSION_KINDS, "i"), (CLICK_KINDS, "c")):
        wrong = [letter for letter in kinds.values() if letter != right]
        assert len(set(wrong)) == len(wrong)
        assert [kind for kind, letter in kinds.items() if letter == right and "delivered" not in kind] == [
            "impression" if right == "i" else "click"
        ]
