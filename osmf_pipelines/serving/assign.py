"""Which group a user is in, by the rules of a day: the one definition, for an ad server, an A/B test and Spark.

The rules are rows of the table `serving_map`: a cell of user attributes to its group, and each scope's root for
everybody else. `osmf_pipelines/spark/assign.py` is the same for whole tables. Which picture the group is shown belongs
in `serving_map.py`. Standard library alone, so that an ad server can take these files as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RULE = "rule"
EVERYONE_ELSE = "everyone"  # in place of a cell: the scope's root
UNKNOWN = "unknown"
_RESERVED = re.compile(r"[|=]")


@dataclass(frozen=True)
class ScopeRules:
    """The rules of one scope.

    Attributes:
        attribute_names: that its cells name, in their order.
        group_of_cell: cell text to group.
        root: the group of everybody else.
    """

    attribute_names: tuple[str, ...]
    group_of_cell: Mapping[str, str]
    root: str


Rules = Mapping[str, ScopeRules]


def read_rules(rows: Iterable[Mapping[str, Any]]) -> dict[str, ScopeRules]:
    """Returns the rules of each scope.

    Args:
        rows: of `serving_map` of one day, as mappings by column; rows that are no rules are passed over.

    Raises:
        ValueError: when a cell is in two groups, or a scope has no root.
    """
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["entry"] == RULE:
            of_scope = cells.setdefault(row["scope"], {})
            if of_scope.setdefault(row["cell"], row["group_id"]) != row["group_id"]:
                raise ValueError(f"cell {row['cell']!r} of {row['scope']} is in two groups: give the rows of one day.")
    rules = {}
    for scope, groups in cells.items():
        if EVERYONE_ELSE not in groups:
            raise ValueError(f"{scope} has no rule for everyone else: give all rows of the day.")
        root = groups.pop(EVERYONE_ELSE)
        first = next(iter(groups), "")
        names = tuple(part.split("=", 1)[0] for part in first.split("|") if "=" in part)
        rules[scope] = ScopeRules(names, groups, root)
    return rules


def assign_group(attributes: Mapping[str, str | None], scope: str, rules: Rules) -> str | None:
    """Returns the group of a user with these attributes in a scope; None where the scope has no groups.

    A user in a cell without a rule, as with a value that no logged user had, is in the scope's root. A user of whom
    nothing is known is in the cell that says so, if it has a rule. Attributes that no rule names do not count.

    Args:
        attributes: name to value, as the table `users` has them; None, an empty and a missing value are the same.
        scope: product category.
        rules: of a day.

    Raises:
        ValueError: when a value that counts is no text.
    """
    of_scope = rules.get(scope)
    if of_scope is None:
        return None
    return of_scope.group_of_cell.get(write_cell(attributes, of_scope.attribute_names), of_scope.root)


def write_cell(attributes: Mapping[str, str | None], names: Iterable[str]) -> str:
    """Returns the cell of a user: `name=value` for each of `names`, joined by bars; `unknown` where there are none.

    Values lose the spaces around them; bars and equal signs in names and values are underscores. Where two names are
    the same then, the one that comes last counts.

    Raises:
        ValueError: when a value that counts is no text.
    """
    by_name = {_RESERVED.sub("_", name): attributes[name] for name in sorted(attributes)}
    return "|".join(f"{name}={_value(name, by_name.get(name))}" for name in names) or UNKNOWN


def _value(name: str, value: str | None) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"attribute {name} is {value!r}: give it as text, as the table users has it.")
    return _RESERVED.sub("_", (value or "").strip(" ")) or UNKNOWN
