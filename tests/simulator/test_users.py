from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, chisquare

from osmf_models.simulator.draws import Draws
from osmf_models.simulator.realistic import realistic_market
from osmf_models.simulator.users import (
    NUM_ACTIVITY_LEVELS,
    Attribute,
    Population,
    cell_values,
    check_population,
    combination_shares,
    combinations,
)

AGE = Attribute("age", ("young", "middle", "old"), None, ((0.5, 0.3, 0.2),), 0.04)
PRICE = Attribute("price", ("low", "high"), "age", ((0.1, 0.9), (0.5, 0.5), (0.75, 0.25)))
SMALL = Population(3, 200_000, (AGE, PRICE), is_heavy_tailed=False, factor_spread=0.0)
EVERYONE = np.arange(200_000)


@pytest.fixture(scope="module")
def population() -> Population:
    return realistic_market(7, num_products_per_scope=1, num_users=200_000).population


def place(population: Population, name: str) -> int:
    return [attribute.name for attribute in population.attributes].index(name)


def test_shares_of_combinations_are_marginals_times_conditionals():
    assert combinations((AGE, PRICE)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    np.testing.assert_allclose(combination_shares((AGE, PRICE)), [0.05, 0.45, 0.15, 0.15, 0.15, 0.05])


def test_users_have_the_stated_marginals_and_depend_on_their_parent():
    values = SMALL.values(EVERYONE)
    counts = np.bincount(values[:, 0] * 2 + values[:, 1], minlength=6)
    assert chisquare(counts, 200_000 * np.array([0.05, 0.45, 0.15, 0.15, 0.15, 0.05])).pvalue > 0.001
    np.testing.assert_array_equal(SMALL.combination(EVERYONE), values[:, 0] * 2 + values[:, 1])


def test_every_marginal_and_conditional_of_the_realistic_population_is_as_specified(population):
    values = population.values(EVERYONE)
    for column, attribute in enumerate(population.attributes):
        parents = (
            np.zeros(len(values), int) if attribute.parent is None else values[:, place(population, attribute.parent)]
        )
        for parent, probabilities in enumerate(attribute.probabilities):
            counts = np.bincount(values[parents == parent, column], minlength=len(attribute.values))
            assert chisquare(counts, counts.sum() * np.array(probabilities)).pvalue > 1e-4, (attribute.name, parent)


def test_all_attributes_together_are_as_specified(population):
    expected = 200_000 * combination_shares(population.attributes)
    counts = np.bincount(population.combination(EVERYONE), minlength=len(expected))
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wished = np.append(expected[common], expected[~common].sum())
    assert chi2.sf(((observed - wished) ** 2 / np.maximum(wished, 1e-9)).sum(), len(wished) - 1) > 0.001


def test_the_stated_shares_of_values_are_missing_whatever_the_value(population):
    values, missing = population.values(EVERYONE), population.is_missing(EVERYONE)
    assert {a.name for a in population.attributes if a.missing_share} >= {"age_band", "interest"}
    for column, attribute in enumerate(population.attributes):
        for value in range(len(attribute.values)):
            of_value = missing[values[:, column] == value, column]
            test = binomtest(int(of_value.sum()), len(of_value), attribute.missing_share)
            assert test.pvalue > 1e-4, (attribute.name, value)


def test_what_is_asked_of_some_users_is_what_is_asked_of_all(population):
    some = np.array([199_999, 3, 77_777, 3])
    np.testing.assert_array_equal(population.values(some), population.values(EVERYONE)[some])
    np.testing.assert_array_equal(population.is_missing(some), population.is_missing(EVERYONE)[some])
    np.testing.assert_array_equal(population.click_factors(some), population.click_factors(EVERYONE)[some])
    larger = replace(population, num_users=300_000)
    np.testing.assert_array_equal(population.values(some), larger.values(some))


def test_another_seed_is_another_population(population):
    other = replace(population, seed=population.seed + 1)
    assert (population.values(EVERYONE[:1_000]) != other.values(EVERYONE[:1_000])).any(0).all()


def test_numbers_drawn_under_two_names_or_for_neighbouring_keys_are_unrelated():
    one, other = Draws(0).uniform("one", EVERYONE), Draws(0).uniform("other", EVERYONE)
    assert chisquare(np.bincount((one * 100).astype(int), minlength=100)).pvalue > 0.001
    pairs = (one * 10).astype(int) * 10 + (other * 10).astype(int)
    assert chisquare(np.bincount(pairs, minlength=100)).pvalue > 0.001
    neighbours = (one[:-1:2] * 10).astype(int) * 10 + (one[1::2] * 10).astype(int)
    assert chisquare(np.bincount(neighbours, minlength=100)).pvalue > 0.001


def test_a_few_of_forty_million_users_need_next_to_no_memory(population):
    many = replace(population, num_users=40_000_000)
    last, draws = np.arange(39_999_900, 40_000_000), Draws(1)
    many.active_users(draws, last)
    tracemalloc.start()
    values, factors = many.values(last), many.click_factors(last)
    active = many.active_users(draws, np.arange(10_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000
    assert values.shape == (100, 7)
    assert len(factors) == 100
    assert active.max() < 40_000_000
    assert np.quantile(active, [0.1, 0.9]) == pytest.approx([4e6, 36e6], rel=0.05)


@pytest.mark.parametrize("num_users", [1, 50, 300, 1_000, 20_000])
def test_click_factors_have_mean_one_over_the_impressions_of_however_few_users(population, num_users):
    few = replace(population, num_users=num_users)
    factors = few.click_factors(few.active_users(Draws(5), np.arange(400_000)))
    assert factors.mean() == pytest.approx(1.0, abs=0.003)


def test_click_factors_have_the_stated_spread_and_one_mean_at_every_activity(population):
    factors = population.click_factors(EVERYONE[: 64 * 8 * 100]).reshape(-1, NUM_ACTIVITY_LEVELS)
    np.testing.assert_allclose(factors.mean(0), factors.mean())
    assert 0.85 * 0.4 < np.log(factors).std() < 0.4
    assert (replace(population, factor_spread=0.0).click_factors(EVERYONE) == 1.0).all()


def test_the_most_active_64th_of_the_users_see_eight_times_the_mean(population):
    few = replace(population, num_users=6_400)
    counts = np.bincount(few.active_users(Draws(5), np.arange(2_000_000)), minlength=6_400)
    assert len(counts) == 6_400
    assert 7 < np.sort(counts)[-100:].mean() / counts.mean() < 9
    level = counts.reshape(100, NUM_ACTIVITY_LEVELS)
    assert (np.diff(level.sum(0)[::9]) > 0).all()
    assert chisquare(level[:, -1]).pvalue > 0.001


@pytest.mark.parametrize("is_heavy_tailed", [False, True])
def test_attributes_make_active_by_the_factors_given(population, is_heavy_tailed):
    activity = (("gender", (1.0, 2.0)), ("city_tier", (4.0, 1.0, 2.0)))
    lively = replace(population, num_users=64_000, is_heavy_tailed=is_heavy_tailed, activity=activity)
    names = [attribute.name for attribute in lively.attributes]
    expected = np.ones((2, 3))
    for name, axis in (("gender", 0), ("city_tier", 1)):
        shape = [1, 1]
        shape[axis] = -1
        shares, factors = lively.attributes[names.index(name)].probabilities[0], dict(activity)[name]
        expected = expected * (np.array(shares) * factors).reshape(shape)
    values = lively.values(lively.active_users(Draws(5), np.arange(400_000)))
    counts = np.zeros((2, 3))
    np.add.at(counts, (values[:, names.index("gender")], values[:, names.index("city_tier")]), 1)
    # The users are a sample too, of 64,000: shares of the few cells are within 3%.
    np.testing.assert_allclose(counts / counts.sum(), expected / expected.sum(), rtol=0.03)


def test_the_user_behind_an_impression_is_the_same_whichever_are_drawn_beside_it(population):
    lively = replace(population, num_users=6_400, activity=(("gender", (1.0, 4.0)),))
    together = lively.active_users(Draws(5), np.arange(1_000))
    apart = np.concatenate([lively.active_users(Draws(5), np.arange(n, n + 100)) for n in range(0, 1_000, 100)])
    np.testing.assert_array_equal(together, apart)


def test_without_a_heavy_tail_everyone_is_as_active():
    even = replace(SMALL, num_users=640)
    counts = np.bincount(even.active_users(Draws(5), np.arange(200_000)), minlength=640)
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("num_users", [1, 63, 64, 130])
def test_every_user_of_a_heavy_tailed_population_is_seen_and_no_other(population, num_users):
    users = replace(population, num_users=num_users).active_users(Draws(2), np.arange(50_000))
    assert sorted(set(users.tolist())) == list(range(num_users))


def test_a_cell_is_read_in_any_order_and_only_when_it_is_whole():
    assert cell_values((AGE, PRICE), "price=unknown|age=old") == ("old", "unknown")
    for cell in ("age=old", "age=old|price=free", "age=old|price=low|city=1", ""):
        with pytest.raises(ValueError, match="is no cell of this market"):
            cell_values((AGE, PRICE), cell)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(SMALL, num_users=0), "num_users is 0"),
        (replace(SMALL, seed=-1), "seed is -1"),
        (replace(SMALL, factor_spread=-0.1), r"factor_spread -0\.1"),
        (
            replace(SMALL, attributes=(replace(AGE, probabilities=((0.5, 0.3, 0.1),)),)),
            r"probabilities of age add up to \[0\.9",
        ),
        (replace(SMALL, attributes=(replace(AGE, probabilities=((1.2, -0.3, 0.1),)),)), "probabilities of age"),
        (replace(SMALL, attributes=(replace(AGE, missing_share=1.0),)), r"missing_share of age is 1\.0"),
        (replace(SMALL, activity=(("age", (1.0,)),)), r"activity of age is \(1\.0,\)"),
        (replace(SMALL, activity=(("age", (1.0, 0.0, 1.0)),)), "activity of age"),
        (replace(SMALL, activity=(("pets", (1.0, 2.0)),)), "activity of pets"),
    ],
)
def test_an_impossible_population_is_refused(wrong, message):
    check_population(SMALL)
    with pytest.raises(ValueError, match=message):
        check_population(wrong)
