import numpy as np

from osmf_pipelines.spark.features import attribute_shares, describe_group, pick_exemplars
from osmf_pipelines.spark.preference_model import design_creatives


def test_shares_are_of_users():
    cells = ["age=old|city=north", "age=young|city=north", "unknown"]

    assert attribute_shares(cells, np.array([1, 2, 1])) == {"age=old": 0.25, "age=young": 0.5, "city=north": 0.75}


def test_rare_values_are_told_together():
    cells = ["city=a", "city=b", "city=c", "city=d"]
    users = np.array([5, 1, 3, 1])

    shares = attribute_shares(cells, users, max_values=2)

    assert shares == {"city=a": 0.5, "city=c": 0.3, "city=other values": 0.2}
    assert attribute_shares(cells[:2], users[:2], shares) == {"city=a": 5 / 6, "city=other values": 1 / 6}


def test_exemplars_are_relative_to_their_product_and_never_both():
    design = design_creatives(np.array([0, 0, 0, 1, 1]), np.zeros((5, 1)))
    ids = ["a", "b", "c", "d", "e"]
    shown = np.array([1000.0, 1000.0, 0.0, 1000.0, 1000.0])
    clicks = np.array([100.0, 300.0, 0.0, 5.0, 1.0])  # relative to 200 and 3 expected

    top, bottom = pick_exemplars(design, ids, shown, clicks)

    assert top == ["b", "d"]  # 310/210 and 15/13
    assert bottom == ["a", "e"]  # 110/210 and 11/13
    assert pick_exemplars(design, ids, np.zeros(5), np.zeros(5)) == ([], [])


def test_the_description_is_true_to_the_numbers():
    shares = {"age=18-24": 0.4, "age=25-34": 0.3, "age=50+": 0.3, "budget=low": 0.9, "budget=high": 0.1}
    scope = {"age=18-24": 0.2, "age=25-34": 0.2, "age=50+": 0.6, "budget=low": 0.8, "budget=high": 0.2}
    names = ["brightness", "warmth", "texture", "edge_density"]

    text = describe_group(shares, scope, names, np.array([2.5, 8.0, -3.0, 1.9]))

    assert text == "mostly age 18-24 or 25-34; prefers warm colours, bright scenes; avoids busy textures"


def test_a_group_like_everyone_without_a_taste_is_told_as_such():
    shares = {"age=old": 0.5, "age=young": 0.5}

    assert describe_group(shares, shares, ["hue"], np.array([1.0])) == "all kinds of users; no clear taste in pictures"
    assert describe_group(shares, shares, ["edge_density"], np.array([-4.0])) == (
        "all kinds of users; avoids higher edge density"
    )
