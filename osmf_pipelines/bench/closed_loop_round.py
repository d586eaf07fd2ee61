"""A round of the closed loop: what is decided before its days, and the test that its shop runs by that.

The decision is kept as a file, so that a round that was ended half-way goes on with the same arms. The round's days are
drawn and written in `osmf_pipelines/spark/simulated_arms.py`.

Shapes: `P` products, `G` most groups of a scope and its root, `M` pictures that an arm chooses among, `V` users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osmf_models.simulator.drawn import DrawnCreative
from osmf_models.simulator.draws import Index
from osmf_models.simulator.events import Shop
from osmf_pipelines.serving.assign import Rules, assign_group
from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.spark.experiment_arms import DEFAULT_CONTROL
from osmf_pipelines.spark.simulated_arms import Catalogue, ServedArm, ShopTest
from osmf_pipelines.spark.simulated_files import logged_creative_ids

CONTROL, ONE_SIZE, CHAMPION, CHALLENGER, EXPLORE = DEFAULT_CONTROL, "one_size", "champion", "challenger", "explore"
EXPLORED_SHARE = 0.1
Pictures = dict[str, dict[str, tuple[str, str]]]


@dataclass(frozen=True)
class ModelPictures:
    """What a model drew for an arm.

    Attributes:
        version: of the model, as the logs tell it.
        pictures: (path, sha256) by group and product.
    """

    version: str
    pictures: Pictures

    @classmethod
    def of_map(cls, serving: ServingMap) -> ModelPictures:
        """Returns the pictures that an ad server shows.

        Raises:
            ValueError: when they are of several versions.
        """
        versions = {one.model_version for one in serving.pictures.values()}
        if len(versions) != 1:
            raise ValueError(f"the serving map holds pictures of versions {sorted(versions)}: generate it again.")
        found: Pictures = {}
        for (group, product), one in serving.pictures.items():
            found.setdefault(group, {})[product] = (one.path, one.sha256)
        return cls(str(versions.pop()), found)

    @classmethod
    def of_rows(cls, version: str, rows: pd.DataFrame) -> ModelPictures:
        """Returns the pictures of stage generate that may be shown.

        Args:
            version: of the model.
            rows: columns as `GENERATED_COLUMNS`.
        """
        found: Pictures = {}
        for row in rows[rows.refusal.isna()].itertuples():
            picture = str(row.picture_path), str(row.picture_sha256)
            found.setdefault(str(row.group_id), {})[str(row.product_id)] = picture
        return cls(version, found)


@dataclass(frozen=True)
class RoundPlan:
    """What is decided before a round's days.

    Attributes:
        experiment_id: of its test.
        as_of: day whose groups and rules are served, ISO.
        best_single: for each product the logged creative that the logs say is best for everyone.
        models: what models drew, by arm.
        shares: of users, by arm of the experiment, together 1; besides, `EXPLORED_SHARE` of all users are in no arm.
    """

    experiment_id: str
    as_of: str
    best_single: dict[str, str]
    models: dict[str, ModelPictures]
    shares: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes the plan, which nobody sees before it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> RoundPlan:
        """Returns the plan of a file."""
        told = json.loads(path.read_text())
        models = {arm: ModelPictures(one["version"], one["pictures"]) for arm, one in told.pop("models").items()}
        return cls(models=models, **told)


def shares_of(models: Mapping[str, ModelPictures]) -> dict[str, float]:
    """Returns how users are split between the arms: the champion and its challenger get twice what the others get."""
    weights = {CONTROL: 1.0, **{arm: 1.0 if arm == ONE_SIZE else 2.0 for arm in models}}
    return {arm: weight / sum(weights.values()) for arm, weight in weights.items()}


def best_logged(rates: pd.DataFrame, shop: Shop) -> dict[str, str]:
    """Returns, by product, the shop's own picture of the highest click rate among everyone; the first of a new product.

    Args:
        rates: rows of `group_ctr` of scope roots: creative_id, ctr_rate.
        shop: whose logged creatives there are to choose among.
    """
    rate_of, market = dict(zip(rates.creative_id, rates.ctr_rate, strict=True)), shop.market
    ids = np.array(logged_creative_ids(market)).reshape(len(market.products), -1)
    return {
        product.product_id: str(max(own, key=lambda one: rate_of.get(one, -1.0)))
        for product, own in zip(market.products, ids, strict=True)
    }


def open_test(plan: RoundPlan, rules: Rules, shop: Shop) -> tuple[Catalogue, ShopTest]:
    """Returns what the shop can show, and the test of a round.

    An arm without a picture of its own for a group shows its picture for everyone of the category, else the control's.

    Args:
        plan: of the round.
        rules: of its day, by which users are assigned to groups.
        shop: whose market it is.
    """
    places = {product.product_id: place for place, product in enumerate(shop.market.products)}
    drawn: dict[str, DrawnCreative] = {}
    for model in plan.models.values():
        for product_id, (path, sha256) in (item for group in model.pictures.values() for item in group.items()):
            creative_id = _creative_id(product_id, sha256)
            drawn.setdefault(creative_id, DrawnCreative(creative_id, product_id, path, model.version))
    catalogue = Catalogue(shop, sorted(drawn.values(), key=lambda one: one.creative_id))
    groups = _groups_of(rules, shop)
    place_of = {creative_id: place for place, creative_id in enumerate(catalogue.ids)}
    num_groups = max(len(ids) for ids in groups.values())
    control = np.array([place_of[plan.best_single[one]] for one in places])[:, None].repeat(num_groups, axis=1)
    shown = {CONTROL: control, **{arm: control.copy() for arm in plan.models}}
    for arm, model in plan.models.items():
        for product in shop.market.products:
            row, ids = places[product.product_id], groups[product.scope]
            for column, group_id in enumerate(ids):
                own = [model.pictures.get(one, {}).get(product.product_id) for one in (group_id, ids[0])]
                found = next((one for one in own if one is not None), None)
                if found is not None:
                    shown[arm][row, column] = place_of[_creative_id(product.product_id, found[1])]
    arms = [ServedArm(arm, plan.shares[arm] * (1 - EXPLORED_SHARE), shown[arm][..., None]) for arm in shown]
    arms.append(ServedArm(None, EXPLORED_SHARE, _explored(catalogue, len(places), num_groups)))
    return catalogue, ShopTest(plan.experiment_id, tuple(arms), _assign(rules, groups, shop))


def _creative_id(product_id: str, sha256: str) -> str:
    """Pictures that are the same to the byte are one creative."""
    return f"{product_id}-{sha256[:16]}"


def _groups_of(rules: Rules, shop: Shop) -> dict[str, list[str]]:
    """Groups of each scope, its root first; a scope without rules has a nameless one."""
    found = {}
    for scope in shop.market.scopes:
        own = rules.get(scope.name)
        root = "" if own is None else own.root
        found[scope.name] = [root, *sorted(set(own.group_of_cell.values()) - {root})] if own else [root]
    return found


def _explored(catalogue: Catalogue, num_products: int, num_groups: int) -> Index:
    """All pictures of a product, logged and drawn for whomever, (P, G, M); some twice where others have more."""
    own = [np.flatnonzero(catalogue.products == row) for row in range(num_products)]
    most = max(len(one) for one in own)
    return np.stack([np.resize(one, most) for one in own])[:, None].repeat(num_groups, axis=1)


def _assign(rules: Rules, groups: Mapping[str, list[str]], shop: Shop) -> NDArray[np.int64]:
    """Place of each user's group in each scope, as an ad server finds it, (V, scopes)."""
    population = shop.market.population
    users = np.arange(population.num_users)
    values, is_missing = population.values(users), population.is_missing(users)
    own = [
        {
            attribute.name: None if missing[place] else attribute.values[bins[place]]
            for place, attribute in enumerate(population.attributes)
        }
        for bins, missing in zip(values, is_missing, strict=True)
    ]
    found = np.zeros((len(users), len(groups)), np.int64)
    for column, (scope, ids) in enumerate(groups.items()):
        place_of = {group_id: place for place, group_id in enumerate(ids)}
        for user, attributes in enumerate(own):
            found[user, column] = place_of[assign_group(attributes, scope, rules) or ids[0]]
    return found
