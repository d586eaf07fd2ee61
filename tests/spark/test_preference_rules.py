from itertools import permutations

import numpy as np

from osmf_pipelines.spark.preference_rules import UNDIVIDED_RULE, bin_cells, group_id, parse_cell, write_rule

CELLS = [f"age={age}|city={city}" for age in ("old", "young") for city in ("east", "north", "south")]


def test_a_cell_is_parsed_into_its_attributes():
    assert parse_cell("age=18-24|city=unknown") == {"age": "18-24", "city": "unknown"}
    assert parse_cell("unknown") == {}


def test_rare_values_share_the_last_bin():
    cells = ["age=a", "age=b", "age=c", "age=d", "unknown"]

    attributes = bin_cells(cells, np.array([1.0, 9.0, 1.0, 5.0, 0.5]), max_values=3)

    assert attributes.bins == ((("b",), ("d",), ("a", "c", "unknown")),)
    assert attributes.codes.tolist() == [[2, 0, 2, 1, 2]]


def test_the_rule_joins_boxes_and_does_not_depend_on_their_order():
    attributes = bin_cells(CELLS, np.ones(6), max_values=32)  # bins in order of their texts
    old, young, east, north = (frozenset({code}) for code in (0, 1, 0, 1))
    boxes = [(old, east), (old, north), (young, north)]

    rules = {write_rule(attributes, list(order)) for order in permutations(boxes)}

    assert len(rules) == 1
    assert rules.pop() == "age in {old} & city in {east, north} or age in {young} & city in {north}"


def test_values_that_share_a_bin_are_not_listed():
    attributes = bin_cells(["city=a", "city=b", "city=c", "city=d"], np.array([9.0, 5.0, 1.0, 1.0]), max_values=3)
    a, rare = frozenset({0}), frozenset({1, 2})

    assert write_rule(attributes, [(a,)]) == "city in {a}"
    assert write_rule(attributes, [(rare,)]) == "city not in {a}"


def test_all_boxes_together_are_everyone():
    attributes = bin_cells(CELLS, np.ones(6), max_values=32)
    left, right = (frozenset({0}), frozenset({0, 1, 2})), (frozenset({1}), frozenset({0, 1, 2}))

    assert write_rule(attributes, [left, right]) == UNDIVIDED_RULE


def test_the_id_depends_on_scope_and_rule():
    assert len({group_id("shoes", "a"), group_id("lamps", "a"), group_id("shoes", "b")}) == 3
    assert group_id("shoes", "everyone") == "60977ad4bb3f962d"
