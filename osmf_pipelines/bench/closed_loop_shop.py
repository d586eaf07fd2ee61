"""The simulated shop of a closed loop: after its first logs it goes on, day by day, with the test of the round.

What a round tests belongs in `closed_loop_round.py`, drawing a day in `osmf_pipelines/spark/simulated_arms.py`.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

from osmf_models.simulator.events import open_shop
from osmf_models.simulator.market import Market
from osmf_pipelines.bench.closed_loop_round import EXPLORE, RoundPlan, open_test
from osmf_pipelines.serving.serving_map import ServingMap
from osmf_pipelines.sources.read_mapping import read_mapping
from osmf_pipelines.spark.simulate_logs import Logs
from osmf_pipelines.spark.simulated_arms import (
    Catalogue,
    ShopTest,
    deliver,
    draw_served_day,
    write_served_day,
)


class LoopShop:
    """A shop that serves, and logs what it serves.

    Args:
        market: what is sold, to whom, and who likes what.
        logs: its first days, which are in the drop folder; it goes on after them with the same draws.
        drop: the drop folder.
        impressions_per_day: of its further days, at most as many as of the first ones.

    Raises:
        ValueError: when the folder's mapping names no columns for tests, as older ones did not.
    """

    def __init__(self, market: Market, logs: Logs, drop: Path, impressions_per_day: int):
        if "experiment_id" not in read_mapping(drop, "files").impressions.columns:
            raise ValueError(
                f"{drop} was simulated by an earlier version, whose logs tell no experiment: move its home away, or "
                "name another by OSMF_HOME, and begin anew."
            )
        self.shop = open_shop(market, logs.seed, logs.start_date, logs.impressions_per_day)
        self.drop, self.impressions_per_day = drop, impressions_per_day
        self._open_test = lru_cache(maxsize=1)(self._open)

    def serve(self, plan: Path, rules: Path, day: date) -> dict[str, float]:
        """Shows a day's users what the round's plan says, and writes the log, which is not delivered yet.

        Args:
            plan: file of the round's plan.
            rules: file of the serving map whose rules say who is in which group.
            day: after the shop's first days.

        Returns:
            Expected clicks an impression by arm, `explore` for those in none, by the truth.
        """
        index = (day - self.shop.start_date).days
        catalogue, test = self._open_test(plan, rules)
        served = draw_served_day(self.shop, catalogue, test, index, self.impressions_per_day)
        write_served_day(self.shop, catalogue, test, served, self.drop)
        return {name or EXPLORE: rate for name, rate in served.exact_rates(test).items()}

    def deliver(self, day: date) -> None:
        """Marks a day's log as complete."""
        deliver(day, self.drop)

    def _open(self, plan: Path, rules: Path) -> tuple[Catalogue, ShopTest]:
        return open_test(RoundPlan.read(plan), ServingMap.read(rules).rules, self.shop)
