"""Which group a user is in: Spark and Python say the same, and both what the day's groups say."""

from __future__ import annotations

import itertools
import random

import pytest
from pyspark.sql import SparkSession

from osmf_pipelines.serving.assign import ScopeRules, assign_group, read_rules
from osmf_pipelines.spark.assign import assign_groups, list_rules
from osmf_pipelines.spark.attribute import assign_cells

AGES, CITIES = ("18-24", "25-34", "unknown"), ("north", "a_b", "São Paulo, {SP}")
CELLS = [f"age={age}|city={city}" for age, city in itertools.product(AGES, CITIES)]
GROUPS = {
    "shoes": {cell: "s-old" if "age=25-34" in cell else "s-rest" for cell in CELLS},
    "lamps": {cell: f"l{number}" for number, cell in enumerate(CELLS[:-1])},
    # A scope whose users had no attributes at all, and one where the attribute `pet` came inside the window.
    "hats": {"unknown": "h-all"},
    "bags": {"age=18-24": "b-young", "age=18-24|pet=cat": "b-cat", "age=25-34|pet=unknown": "b-new", "age=25-34": "b"},
}
ROOTS = {scope: f"{scope}-root" for scope in (*GROUPS, "toys")}
ODD = (
    "18-24",
    " 25-34 ",
    "\t18-24",
    "",
    " ",
    None,
    "north",
    "a|b",
    "a=b",
    "São Paulo, {SP}",
    "SÃO",
    "unknown",
    "0",
    "猫",
)
NAMES = ("age", "city", "pet", "ag", "age ", "p|et", "p=et", "Age", "")


@pytest.fixture(scope="module")
def rules_frame(spark: SparkSession):
    cells = [(scope, cell, group) for scope, found in GROUPS.items() for cell, group in found.items()]
    roots = [(scope, group, True) for scope, group in ROOTS.items()] + [("shoes", "s-old", False)]
    return list_rules(
        spark.createDataFrame(cells, "scope string, cell string, group_id string"),
        spark.createDataFrame(roots, "scope string, group_id string, is_scope_root boolean"),
    ).cache()


@pytest.fixture(scope="module")
def rules(rules_frame) -> dict[str, ScopeRules]:
    return read_rules({**row.asDict(), "entry": "rule"} for row in rules_frame.collect())


def test_the_rules_name_every_attribute_and_the_fuller_cell_counts(rules):
    assert rules["bags"] == ScopeRules(
        ("age", "pet"),
        {"age=18-24|pet=unknown": "b-young", "age=18-24|pet=cat": "b-cat", "age=25-34|pet=unknown": "b-new"},
        "bags-root",
    )
    assert rules["hats"] == ScopeRules((), {"unknown": "h-all"}, "hats-root")
    assert rules["toys"] == ScopeRules((), {}, "toys-root")
    assert rules["shoes"].group_of_cell == GROUPS["shoes"]


def test_every_logged_cell_leads_to_its_group(rules):
    for scope in ("shoes", "lamps"):
        for cell, group in GROUPS[scope].items():
            assert assign_group(dict(part.split("=") for part in cell.split("|")), scope, rules) == group


def test_who_is_not_known_is_in_the_cell_that_says_so_or_in_the_root(rules):
    assert assign_group({"age": "18-24", "city": "nowhere"}, "shoes", rules) == "shoes-root"
    assert assign_group({"city": "a|b", "shoe size": "44"}, "shoes", rules) == "s-rest"
    assert assign_group({}, "shoes", rules) == "shoes-root"
    assert assign_group({"age": None, "pet": "cat"}, "bags", rules) == "bags-root"
    assert assign_group({"age": "18-24"}, "hats", rules) == "h-all"
    assert assign_group({"age": "18-24"}, "toys", rules) == "toys-root"
    assert assign_group({"age": "18-24"}, "no such scope", rules) is None


def test_spark_and_python_agree_on_every_user(spark, rules_frame, rules):
    draws = random.Random(5)
    users = [dict(zip(("age", "city"), pair, strict=True)) for pair in itertools.product(AGES, CITIES)]
    users += [{name: draws.choice(ODD) for name in draws.sample(NAMES, draws.randint(0, 5))} for _ in range(400)]
    rows = [
        (number, scope, attributes)
        for number, attributes in enumerate([*users, None])
        for scope in (*ROOTS, "no such scope")
    ]
    frame = spark.createDataFrame(rows, "number int, scope string, attributes map<string,string>")

    found = {(row["number"], row["scope"]): row["group_id"] for row in assign_groups(frame, rules_frame).collect()}

    assert found == {(number, scope): assign_group(told or {}, scope, rules) for number, scope, told in rows}
    assert len(set(found.values())) > 15, "groups, roots and none"


def test_users_of_the_logs_are_in_the_group_of_their_cell(spark):
    """Cells as `silver_exposures` has them, from the same attributes."""
    attributes = {
        "u1": {"city": "north|1", "age": " 18-24"},
        "u2": {"age": " ", "city": "a=b"},
        "u3": {"age": "25-34"},
        "u4": {},
    }
    users = spark.createDataFrame(list(attributes.items()), "user_id string, attributes map<string,string>")
    cells = {row["user_id"]: row["cell"] for row in assign_cells(users).where("user_id IS NOT NULL").collect()}
    told = [{"entry": "rule", "scope": "s", "cell": cell, "group_id": user} for user, cell in cells.items()]
    rules = read_rules([*told, {"entry": "rule", "scope": "s", "cell": "everyone", "group_id": "root"}])

    assert {user: assign_group(own, "s", rules) for user, own in attributes.items()} == {u: u for u in attributes}


def test_wrong_rules_and_values_are_named(rules):
    with pytest.raises(ValueError, match=r"attribute age is 34: give it as text"):
        assign_group({"age": 34}, "shoes", rules)  # type: ignore[dict-item]
    rule = {"entry": "rule", "scope": "s", "cell": "age=1", "group_id": "g"}
    with pytest.raises(ValueError, match="s has no rule for everyone else"):
        read_rules([rule])
    with pytest.raises(ValueError, match="cell 'age=1' of s is in two groups"):
        read_rules([rule, {**rule, "group_id": "h"}])
