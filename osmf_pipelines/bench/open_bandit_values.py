"""What the Open Bandit logs' own policies earn, valued on each other's logs: the functions of a refresh, no lake.

The data and their proxies are described in `osmf_pipelines/sources/open_bandit.py`.
"""

from __future__ import annotations

from functools import reduce

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.sources.open_bandit import OpenBanditSource
from osmf_pipelines.spark.policy_values import estimate_policy_values, sum_arms


def value_open_bandit(spark: SparkSession, source: OpenBanditSource, *, min_users: int) -> pd.DataFrame:
    """Returns rows of `policy_values` of the data set's seven days, in the order of the table's key.

    Args:
        spark: session.
        source: the data set; fetched on first use.
        min_users: privacy floor.
    """
    days = source.days()
    shown = reduce(DataFrame.unionByName, [source.impressions(spark, day) for day in days])
    clicked = reduce(DataFrame.unionByName, [source.clicks(spark, day) for day in days])
    exposures = shown.join(clicked.select("impression_id", "click_id"), on="impression_id", how="left").select(
        F.col("product_id").alias("scope"),
        "product_id",
        "creative_id",
        "user_id",
        "arm",
        F.col("position").cast("int").alias("position"),
        F.col("propensity").cast("double").alias("propensity"),
        F.col("click_id").isNotNull().alias("is_clicked"),
    )
    values = estimate_policy_values(sum_arms(exposures), as_of_date=days[-1], min_users=min_users)
    keys = ["scope", "logged_arm", "policy", "compared_with", "estimator"]
    return pd.DataFrame(values.toPandas()).sort_values(keys, ignore_index=True)
