"""Which pictures are asked for, and what each is drawn from: noise, model, product, group.

Drawing belongs in `draw.py`, the files in `store.py`. What is drawn from the same has the same fingerprint, on every
day and in every run; this project's own design.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import pandas as pd

from osmf_models.data.dataset import TrainingExport

EVERYONE = "everyone"
_NUM_NAMED = 5
_SEED_BITS = 31


@dataclass(frozen=True)
class Drawing:
    """How a model draws.

    Attributes:
        artifact_sha256: hash over the model's files.
        is_one_size: it was trained for everyone, and draws one picture of a product for all groups.
        num_inference_steps: solver steps.
        guidance_scale: on the group.
    """

    artifact_sha256: str
    is_one_size: bool
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class PictureRequest:
    """One picture that is asked for.

    Attributes:
        scope: product category.
        group_id: for whom.
        is_scope_root: for everyone of the scope.
        product_id: of what.
        group_index, product_index: rows of the export.
        audience: the group, or `EVERYONE` where the group is not told to the model.
        seed: of the noise, in [0, 2^31); follows from model, audience and product.
        fingerprint: hash over all that the picture is drawn from.
    """

    scope: str
    group_id: str
    is_scope_root: bool
    product_id: str
    group_index: int
    product_index: int
    audience: str
    seed: int
    fingerprint: str


def asked_pictures(
    export: TrainingExport, drawing: Drawing, group_ids: Collection[str] = (), product_ids: Collection[str] = ()
) -> list[PictureRequest]:
    """Returns a request for each of the groups and each of the products of its scope, in a fixed order.

    Args:
        export: groups, scope roots included, and products with cut-outs.
        drawing: how they are drawn.
        group_ids: default: all.
        product_ids: default: all.

    Raises:
        ValueError: when the export lacks a group or a product, or no group asked for is of the scope of a product.
    """
    _refuse_unknown_groups(export, group_ids)
    _refuse_unknown_products(export, product_ids)
    audiences = _audiences(export, drawing, _rows(export.groups, "group_id", group_ids))
    products = _rows(export.products, "product_id", product_ids).sort_values(["scope", "product_id"])
    requests = []
    for product in products.itertuples():
        wanted = audiences.get(str(product.scope), [])
        if not wanted:
            continue
        drawn_from = _digest(str(product.title or ""), export.cutouts[product.Index].tobytes().hex())
        for one in wanted:
            ids = (one.audience, str(product.product_id))
            seed = int(_digest(drawing.artifact_sha256, *ids)[:16], 16) % 2**_SEED_BITS
            fingerprint = _digest(*map(str, astuple(drawing)), *ids, one.features_sha256, drawn_from, str(seed))
            names = (str(product.scope), one.group_id, one.is_scope_root, str(product.product_id))
            requests.append(PictureRequest(*names, one.group_index, product.Index, one.audience, seed, fingerprint))
    if not requests:
        raise ValueError("none of the groups is of the category of one of the products: ask for some that are.")
    return requests


@dataclass(frozen=True)
class _Audience:
    """A group as the model is told of it."""

    group_id: str
    is_scope_root: bool
    group_index: int
    audience: str
    features_sha256: str


def _audiences(export: TrainingExport, drawing: Drawing, groups: pd.DataFrame) -> dict[str, list[_Audience]]:
    """Returns the groups of each scope, its root first."""
    by_scope: dict[str, list[_Audience]] = {}
    for group in groups.sort_values(["is_scope_root", "group_id"], ascending=[False, True]).itertuples():
        is_for_everyone = bool(group.is_scope_root) or drawing.is_one_size
        features = "" if is_for_everyone else _digest(export.raw_group_features[group.Index].tobytes().hex())
        audience = EVERYONE if is_for_everyone else str(group.group_id)
        one = _Audience(str(group.group_id), bool(group.is_scope_root), group.Index, audience, features)
        by_scope.setdefault(str(group.scope), []).append(one)
    return by_scope


def _rows(table: pd.DataFrame, column: str, ids: Collection[str]) -> pd.DataFrame:
    return table[table[column].isin(set(ids))] if ids else table


def _refuse_unknown_groups(export: TrainingExport, group_ids: Collection[str]) -> None:
    unknown = sorted(set(group_ids) - set(export.groups.group_id))
    if unknown:
        raise ValueError(
            f"{_named(unknown)} {_are(unknown)} no group of {export.manifest.as_of_date}: the table group_features of "
            f"that day lists its {len(export.groups)} groups; `group_lineage` says what became of an earlier one."
        )


def _refuse_unknown_products(export: TrainingExport, product_ids: Collection[str]) -> None:
    unknown = sorted(set(product_ids) - set(export.products.product_id))
    if unknown:
        raise ValueError(
            f"{_named(unknown)} {_are(unknown)} no product with a usable cut-out in a category that has groups, as of "
            f"{export.manifest.as_of_date}: give it a cutout_path (RGBA) in the table products, or see `left_out` of "
            "the asset training_export for why it was refused; then export again."
        )


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NUM_NAMED} more" if len(ids) > _NUM_NAMED else ""
    return ", ".join(map(repr, ids[:_NUM_NAMED])) + more


def _are(ids: Sequence[str]) -> str:
    return "is" if len(ids) == 1 else "are"


def _digest(*parts: str) -> str:
    """Returns one hash over texts; their borders count."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()
