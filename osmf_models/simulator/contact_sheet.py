"""One picture to look at a simulated market: products against every segment's favourite scene."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osmf_models.simulator.market import Market, Scope
from osmf_models.simulator.oracle import BestPicture, best_picture, best_single
from osmf_models.simulator.truth import click_rates, everyone, measure_pictures, mixed_click_rates

_KINDS = {"strong": "tastes contradict", "mild": "tastes differ a little", "agreeing": "one size fits all"}
_MAX_COLUMNS = 5


def draw_contact_sheet(market: Market, path: Path, *, num_products_per_scope: int = 1) -> None:
    """Writes a PNG with one row per product: the best picture for all, then each segment's favourite.

    Under each picture stands its true click rate at position 1: for everyone under the first, under a segment's
    favourite in that segment and, in brackets, among all others.

    Args:
        market: the market to show.
        path: file to write; its folder is made.
        num_products_per_scope: rows per scope.
    """
    rows = [
        (scope, product.product_id)
        for scope in market.scopes
        for product in market.products_of(scope.name)[:num_products_per_scope]
    ]
    num_columns = min(_MAX_COLUMNS, 1 + max(len(scope.segments) for scope in market.scopes))
    figure = Figure(figsize=(1.75 * num_columns, 2.15 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (scope, product_id) in zip(axes, rows, strict=True):
        _show_all(row[0], market, scope, product_id)
        largest = sorted(everyone(market, scope.name).items(), key=lambda item: -item[1])
        names = [name for name, _ in largest if len(scope.segments) > 1]
        for axis, name in zip(row[1:], names, strict=False):
            _show_favourite(axis, market, scope, product_id, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _show_all(axis: Axes, market: Market, scope: Scope, product_id: str) -> None:
    picture = best_single(market, product_id)
    title = f"{market.product(product_id).title}\n{_KINDS[scope.kind]}"
    _draw(axis, picture, title, f"best for everyone: {picture.ctr_rate:.1%}")


def _show_favourite(axis: Axes, market: Market, scope: Scope, product_id: str, name: str) -> None:
    picture = best_picture(market, scope.name, {name: 1.0}, product_id)
    measured = measure_pictures(market, product_id, picture.image[None] / 255.0)
    own = click_rates(market, scope.name, name, product_id, measured)[0]
    others = {other: share for other, share in everyone(market, scope.name).items() if other != name}
    elsewhere = mixed_click_rates(market, scope.name, others, product_id, measured)[0]
    _draw(axis, picture, f"\n{name.replace('_', ' ')}", f"{own:.1%} (others {elsewhere:.1%})")


def _draw(axis: Axes, picture: BestPicture, title: str, text: str) -> None:
    axis.imshow(picture.image, interpolation="lanczos")
    axis.set_title(title, fontsize=8)
    axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=8)
