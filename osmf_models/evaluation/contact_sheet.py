"""One picture to look at a simulated market: products against every segment's favourite scene."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osmf_models.simulator.market import Market
from osmf_models.simulator.oracle import BestPicture, best_picture, best_single
from osmf_models.simulator.truth import click_rates, measure_pictures


def contact_sheet(market: Market, path: Path, *, num_products_per_scope: int = 2) -> None:
    """Writes a PNG with one row per product: the best picture for all, then each segment's favourite.

    Under each picture stands its true click rate at position 1 in every segment, the favourite's own in brackets.

    Args:
        market: the market to show.
        path: file to write.
        num_products_per_scope: rows per scope.
    """
    product_ids = [
        product_id
        for scope in market.scopes
        for product_id in [one.product_id for one in market.products if one.scope == scope.name][
            :num_products_per_scope
        ]
    ]
    num_columns = 1 + max(len(scope.segments) for scope in market.scopes)
    figure = Figure(figsize=(2.1 * num_columns, 2.35 * len(product_ids)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(product_ids), num_columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, product_id in zip(axes, product_ids, strict=True):
        scope = market.product(product_id).scope
        names = [segment.name for segment in market.scope(scope).segments]
        _show(row[0], market, product_id, best_single(market, product_id), "best for all")
        for axis, name in zip(row[1:], names, strict=False):
            _show(axis, market, product_id, best_picture(market, scope, {name: 1.0}, product_id), name)
        row[0].set_title(f"{market.product(product_id).title}\nbest for all", fontsize=8)
    figure.savefig(path, dpi=110)


def _show(axis: Axes, market: Market, product_id: str, picture: BestPicture, name: str) -> None:
    scope = market.product(product_id).scope
    measured = measure_pictures(market, product_id, picture.image[None] / 255.0)
    shown = []
    for segment in market.scope(scope).segments:
        rate = f"{click_rates(market, scope, segment.name, product_id, measured)[0]:.1%}"
        shown.append(f"[{rate}]" if segment.name == name else rate)
    axis.imshow(picture.image, interpolation="lanczos")
    axis.set_title(name, fontsize=8)
    axis.text(0.5, -0.03, " ".join(shown), transform=axis.transAxes, ha="center", va="top", fontsize=7)
