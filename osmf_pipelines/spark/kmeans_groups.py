"""K-means over the cells of each scope, by Spark MLlib: a baseline of the adaptive grouping.

MLlib is driven from outside a task, so the driver holds every cell's taste and goes through the scopes one by one:
good enough for a baseline, a refresh of thousands of scopes wants the adaptive tree. Tastes and rules belong in
`baseline_groups`.

Source: K-means||, Bahmani et al. (2012), and the silhouette, Rousseeuw (1987), both as MLlib has them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.ml.clustering import KMeans, KMeansModel
from pyspark.ml.evaluation import ClusteringEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from osmf_pipelines.spark.baseline_groups import join_small_clusters
from osmf_pipelines.spark.preference_cuts import TreeSettings
from osmf_pipelines.spark.preference_model import Array
from osmf_pipelines.spark.scope_groups import CELL_TASTES_DDL, list_cell_tastes

_MAX_CLUSTERS = 8
_SEED = 0


def cluster_cells(counts: DataFrame, features: DataFrame, settings: TreeSettings) -> DataFrame:
    """Returns the cluster of each cell of the scopes that keep the floor of users; runs Spark jobs at once.

    Per scope, k-means with 2 to 8 clusters on the cells' tastes, each cell weighted by its clicks; the number with the
    best silhouette stays, the smaller of equals. Unlike the tree, k-means never finds that a scope agrees: it is one
    cluster only where cells do not differ at all, or by the floors. A cluster under `min_users` or `min_clicks`, the
    one with the fewest users first, joins the cluster with the nearest centroid.

    Grain: one row per (scope, cell). The order of rows and their partitioning do not matter: each scope is fitted as
        one partition, sorted by cell, with a fixed seed.

    Args:
        counts: as `form_scope_groups` takes them, of all scopes.
        features: of all scopes.
        settings: floors of a group.
    """

    def list_tastes(counts_of_scope: pd.DataFrame, features_of_scope: pd.DataFrame) -> pd.DataFrame:
        return list_cell_tastes(counts_of_scope, features_of_scope, settings)

    grouped = counts.groupBy("scope").cogroup(features.groupBy("scope"))
    tastes = pd.DataFrame(grouped.applyInPandas(list_tastes, schema=CELL_TASTES_DDL).toPandas())
    spark = counts.sparkSession
    clusters = [_cluster_scope(spark, of_scope, settings) for _, of_scope in tastes.groupby("scope", sort=True)]
    rows = [tuple(row) for frame in clusters for row in frame.itertuples(index=False)]
    return spark.createDataFrame(rows, "scope string, cell string, cluster int")


def _cluster_scope(spark: SparkSession, tastes: pd.DataFrame, settings: TreeSettings) -> pd.DataFrame:
    """Columns scope, cell and cluster of one scope."""
    tastes = tastes.sort_values("cell", ignore_index=True)
    vectors = np.stack(tastes["taste"].to_list())
    users, clicks = (tastes[name].to_numpy(dtype=np.float64) for name in ("num_users", "num_clicks"))
    centroids = _fit_centroids(spark, vectors[clicks > 0], clicks[clicks > 0])
    clusters = ((vectors[:, None] - centroids) ** 2).sum(axis=-1).argmin(axis=1)
    return tastes[["scope", "cell"]].assign(cluster=join_small_clusters(clusters, vectors, users, clicks, settings))


def _fit_centroids(spark: SparkSession, vectors: Array, clicks: Array) -> Array:
    """Centroids of the number of clusters with the best silhouette; a single 0 where the vectors are all the same."""
    num_distinct = len(np.unique(vectors, axis=0)) if vectors.size else 0
    if num_distinct < 2:
        return np.zeros((1, vectors.shape[1]))
    rows = list(zip(range(len(vectors)), vectors.tolist(), clicks.tolist(), strict=True))
    frame = spark.createDataFrame(rows, "cell int, taste array<double>, num_clicks double").repartition(1)
    frame = frame.sortWithinPartitions("cell").select(array_to_vector(F.col("taste")).alias("features"), "num_clicks")
    frame = frame.cache()
    numbers = range(2, min(_MAX_CLUSTERS, num_distinct) + 1)
    fits = [KMeans(k=number, seed=_SEED, weightCol="num_clicks").fit(frame) for number in numbers]
    silhouettes = [_silhouette(model, frame) for model in fits]
    frame.unpersist()
    return np.stack(fits[int(np.argmax(silhouettes))].clusterCenters())


def _silhouette(model: KMeansModel, frame: DataFrame) -> float:
    """Mean silhouette in [-1, 1]; -1 where MLlib, which draws its first centres by chance, has found a single one."""
    if len(model.clusterCenters()) < 2:
        return -1.0
    return float(ClusteringEvaluator(weightCol="num_clicks").evaluate(model.transform(frame)))
