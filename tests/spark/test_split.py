from collections import Counter

from osmf_pipelines.spark.split import split_products

DDL = "product_id string, scope string, cutout_sha256 string"


def _split(spark, rows, seed=1):
    return {
        row["product_id"]: row["split"] for row in split_products(spark.createDataFrame(rows, DDL), seed=seed).collect()
    }


def test_adding_products_moves_none_and_another_seed_moves_many(spark):
    rows = [(f"p{n}", "shoes", None) for n in range(2000)]

    few, many, reseeded = _split(spark, rows[:300]), _split(spark, rows), _split(spark, rows, seed=2)

    assert {name: many[name] for name in few} == few
    assert sum(many[name] != reseeded[name] for name in many) > 600
    shares = Counter(many.values())
    assert 1320 < shares["train"] < 1480
    assert 240 < shares["validation"] < 360
    assert 240 < shares["test"] < 360


def test_products_with_the_same_picture_fall_together(spark):
    splits = _split(spark, [(f"p{n}", "shoes", f"sha{n % 30}") for n in range(300)])

    assert all(splits[f"p{n}"] == splits[f"p{n % 30}"] for n in range(300))
    assert len(set(splits.values())) == 3
