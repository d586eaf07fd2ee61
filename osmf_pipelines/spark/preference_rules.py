"""Cells, the boxes that a tree cuts them into, and the rule text that names a group.

A box allows a set of bins for each attribute; a group is a union of boxes, or, where no boxes were cut, a list of
cells. Which cuts to make belongs in `preference_tree`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "unknown"
ROOT_RULE = "everyone"
UNDIVIDED_RULE = "everyone, undivided"

Box = tuple[frozenset[int], ...]


@dataclass(frozen=True)
class CellAttributes:
    """The binned attributes of N cells.

    Attributes:
        names: the attributes, sorted, (A,).
        bins: per attribute, the values in each bin; one value a bin, save that rare values share the last.
        codes: bin of each cell in each attribute, (A, N).
    """

    names: tuple[str, ...]
    bins: tuple[tuple[tuple[str, ...], ...], ...]
    codes: NDArray[np.int64]

    @property
    def everything(self) -> Box:
        """The box that allows every cell."""
        return tuple(frozenset(range(len(bins))) for bins in self.bins)


def parse_cell(cell: str) -> dict[str, str]:
    """Returns the attributes of a cell: `age=18-24|city=unknown` to a dictionary; text without `=` has none."""
    return dict(part.split("=", 1) for part in cell.split("|") if "=" in part)


def group_id(scope: str, rule: str) -> str:
    """Returns the id of the group with this rule: the same rule has the same id on every day."""
    return hashlib.sha256(f"{scope}|{rule}".encode()).hexdigest()[:16]


def bin_cells(cells: list[str], weights: NDArray[np.float64], max_values: int) -> CellAttributes:
    """Returns the attributes of `cells`, at most `max_values` bins each.

    Args:
        cells: cell texts; an attribute that a cell does not name is `unknown` there.
        weights: of each cell, to tell which values are frequent; equal weights go by the value's text.
        max_values: the most frequent values keep a bin of their own, the others share the last one.
    """
    parsed = [parse_cell(cell) for cell in cells]
    names = tuple(sorted({name for attributes in parsed for name in attributes}))
    all_bins, all_codes = [], np.zeros((len(names), len(cells)), dtype=np.int64)
    for row, name in enumerate(names):
        values = [attributes.get(name, UNKNOWN) for attributes in parsed]
        totals: dict[str, float] = {}
        for value, weight in zip(values, weights, strict=True):
            totals[value] = totals.get(value, 0.0) + float(weight)
        ranked = sorted(totals, key=lambda value: (-totals[value], value))
        num_own = len(ranked) if len(ranked) <= max_values else max_values - 1
        bins = [(value,) for value in ranked[:num_own]] + [tuple(sorted(ranked[num_own:]))] * (len(ranked) > num_own)
        code_of = {value: code for code, values_of_bin in enumerate(bins) for value in values_of_bin}
        all_bins.append(tuple(bins))
        all_codes[row] = [code_of[value] for value in values]
    return CellAttributes(names, tuple(all_bins), all_codes)


def restrict_box(box: Box, attribute: int, bins: frozenset[int]) -> Box:
    """Returns the part of `box` where the attribute at this index is in `bins`."""
    return (*box[:attribute], box[attribute] & bins, *box[attribute + 1 :])


def write_rule(attributes: CellAttributes, boxes: list[Box]) -> str:
    """Returns the rule of a union of boxes as canonical text, such as `age in {18-24, 25-34} & city in {north}`.

    Boxes that differ in one attribute only are joined first, conditions are sorted by attribute and values by text,
    boxes are joined by `or`; a union without conditions is `UNDIVIDED_RULE`. Values that share the last bin are not
    listed: a box that allows them says which values it does not, `city not in {north}`.
    """
    texts = sorted(_write_box(attributes, box) for box in _join_boxes(boxes))
    return " or ".join(texts) if all(texts) else UNDIVIDED_RULE


def write_cell_list_rule(cells: list[str]) -> str:
    """Returns the rule of a group that is no union of a few boxes: how many cells it has, and a hash of which."""
    digest = hashlib.sha256("\n".join(sorted(cells)).encode()).hexdigest()[:16]
    return f"cluster of {len(cells)} cells, sha256 {digest}"


def _join_boxes(boxes: list[Box]) -> list[Box]:
    """Joins boxes that differ in one attribute only, until none do; the order of the input does not matter."""
    remaining = sorted(boxes, key=_box_key)
    for first in range(len(remaining)):
        for second in range(first + 1, len(remaining)):
            differing = [i for i, (a, b) in enumerate(zip(remaining[first], remaining[second], strict=True)) if a != b]
            if len(differing) == 1:
                at = differing[0]
                union = remaining[first][at] | remaining[second][at]
                joined = (*remaining[first][:at], union, *remaining[first][at + 1 :])
                others = [box for i, box in enumerate(remaining) if i not in (first, second)]
                return _join_boxes([*others, joined])
    return remaining


def _box_key(box: Box) -> list[list[int]]:
    return [sorted(bins) for bins in box]


def _write_box(attributes: CellAttributes, box: Box) -> str:
    conditions = []
    for name, bins, allowed in zip(attributes.names, attributes.bins, box, strict=True):
        if len(allowed) < len(bins):
            is_open = len(bins[-1]) > 1 and len(bins) - 1 in allowed
            listed = set(range(len(bins))) - allowed if is_open else allowed
            values = sorted(value for code in listed for value in bins[code])
            conditions.append(f"{name} {'not in' if is_open else 'in'} {{{', '.join(values)}}}")
    return " & ".join(conditions)
