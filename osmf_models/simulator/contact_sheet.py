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
_NUM_BLOCKS, _BLOCK_COLUMNS, _GAP = 2, 5, 0.15


def draw_contact_sheet(market: Market, path: Path) -> None:
    """Writes a PNG with a block for each scope: the best picture of a product for all, then its segments' favourites.

    Under each picture stands its true click rate at position 1: for everyone under the first, under a segment's
    favourite in that segment and, in brackets, among all others. Where tastes agree, more products follow instead.

    Args:
        market: the market to show.
        path: file to write; its folder is made.
    """
    num_rows = -(-len(market.scopes) // _NUM_BLOCKS)
    figure = Figure(figsize=(1.42 * _NUM_BLOCKS * _BLOCK_COLUMNS, 2.0 * num_rows))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.005, right=1.0, bottom=0.16 / num_rows, top=1 - 0.2 / num_rows, wspace=0.06, hspace=0.42
    )
    widths = ([1.0] * _BLOCK_COLUMNS + [_GAP]) * _NUM_BLOCKS
    axes = figure.subplots(num_rows, len(widths), squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.axis("off")
    for number, scope in enumerate(market.scopes):
        first = number % _NUM_BLOCKS * (_BLOCK_COLUMNS + 1)
        _draw_scope(list(axes[number // _NUM_BLOCKS][first : first + _BLOCK_COLUMNS]), market, scope)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_scope(axes: list[Axes], market: Market, scope: Scope) -> None:
    products = [product.product_id for product in market.products_of(scope.name)]
    _draw_best(axes[0], market, products[0], f"{scope.name}: {_KINDS[scope.kind]}")
    axes[0].title.set_horizontalalignment("left")
    axes[0].title.set_position((0.0, 1.0))
    if len(scope.segments) == 1:
        for axis, product_id in zip(axes[1:], products[1:], strict=False):
            _draw_best(axis, market, product_id, "")
        return
    largest = sorted(everyone(market, scope.name).items(), key=lambda item: -item[1])
    for axis, (name, _) in zip(axes[1:], largest, strict=False):
        _draw_favourite(axis, market, scope, products[0], name)


def _draw_best(axis: Axes, market: Market, product_id: str, title: str) -> None:
    picture = best_single(market, product_id)
    _draw(axis, picture, title, f"best for all: {picture.ctr_rate:.1%}")


def _draw_favourite(axis: Axes, market: Market, scope: Scope, product_id: str, name: str) -> None:
    picture = best_picture(market, scope.name, {name: 1.0}, product_id)
    measured = measure_pictures(market, product_id, picture.image[None] / 255.0)
    own = click_rates(market, scope.name, name, product_id, measured)[0]
    others = {other: share for other, share in everyone(market, scope.name).items() if other != name}
    elsewhere = mixed_click_rates(market, scope.name, others, product_id, measured)[0]
    _draw(axis, picture, "", f"{name.replace('_', ' ')}\n{own:.1%} (others {elsewhere:.1%})")


def _draw(axis: Axes, picture: BestPicture, title: str, text: str) -> None:
    axis.imshow(picture.image, interpolation="lanczos")
    axis.set_title(title, fontsize=9)
    axis.text(0.5, -0.04, text, transform=axis.transAxes, ha="center", va="top", fontsize=8)
