"""The picture of what policies earn; other pictures of the data are in `plots`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from osmf_pipelines.assets.plots import _STYLES, _name, _notice, _percent, _png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ESTIMATORS = ("on_policy", "ips", "snips", "dr")
# What is drawn scope by scope, the first that there is: (policy compared with, estimator, title).
_COMPARISONS = (
    ("own_logs", "snips", "Arm off its own logs − on them"),
    ("best_for_all", "dr", "Per group − for all, by DR"),
)
_MAX_SCOPES = 12
_Row = Mapping[str, Any]


def plot_policy_values(rows: Sequence[_Row]) -> bytes:
    """Returns a PNG: what each policy earns, all scopes together, and a difference of policies scope by scope.

    Every estimate with its 95% interval, without one where clicks are too few. At most 12 scopes are drawn.

    Args:
        rows: of `policy_values`, of one day.
    """
    values = [row for row in rows if row["scope"] is None and row["compared_with"] is None]
    if not values:
        return _notice("no policy was valued")
    differences, title = _differences(rows)

    def draw(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        labels = list(dict.fromkeys(_label(row) for row in values))
        for number, estimator in enumerate(_ESTIMATORS):
            shift = 0.0 if estimator == "on_policy" else 0.16 * (number - 2)
            points = [(labels.index(_label(row)) + shift, row) for row in values if row["estimator"] == estimator]
            _draw_intervals(left, points, number, "as logged" if estimator == "on_policy" else estimator.upper())
        left.set_yticks(range(len(labels)), labels)
        left.set_title("Clicks an impression", fontsize=9)
        left.invert_yaxis()
        _draw_intervals(right, list(enumerate(differences)), 3, "")
        right.set_yticks(range(len(differences)), [_name(row["scope"]) for row in differences])
        right.axvline(0, color="black", linewidth=0.6)
        right.set_title(title, fontsize=9)
        right.invert_yaxis()
        for axis in (left, right):
            axis.xaxis.set_major_formatter(_percent)
            axis.xaxis.set_major_locator(_few_ticks())
            axis.grid(axis="x", linewidth=0.4)
        figure.legend(loc="outside upper left", ncols=len(_ESTIMATORS), handletextpad=0.2)

    return _png(draw, 3.4)


def _differences(rows: Sequence[_Row]) -> tuple[list[_Row], str]:
    for compared_with, estimator, title in _COMPARISONS:
        is_wanted = [row["compared_with"] == compared_with and row["estimator"] == estimator for row in rows]
        found = [row for row, wanted in zip(rows, is_wanted, strict=True) if wanted and row["scope"] is not None]
        if found:
            return found[:_MAX_SCOPES], title
    return [], "no policies to compare"


def _label(row: _Row) -> str:
    policy = str(row["policy"]).replace("_", " ")
    return _name(policy if row["logged_arm"] is None else f"{policy}, {row['logged_arm']} logs")


def _draw_intervals(axis: "Axes", points: Sequence[tuple[float, _Row]], number: int, label: str) -> None:
    color, marker = _STYLES[number]
    drawn_label = label if points else ""
    for at, row in points:
        axis.plot(row["value"], at, color=color, marker=marker, markersize=4, linestyle="", label=drawn_label)
        if row["value_low"] is not None:
            axis.plot([row["value_low"], row["value_high"]], [at, at], color=color, linewidth=1)
        drawn_label = ""


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
