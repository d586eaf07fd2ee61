"""Logs of a given volume for the benchmark of pairs: the realistic market, with what real logs get wrong.

python -m osmf_pipelines.bench.pairs_logs REQUEST.json RESULT.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from osmf_models.simulator.mess import USUAL
from osmf_models.simulator.realistic import realistic_market
from osmf_pipelines.settings import Settings
from osmf_pipelines.spark.session import get_spark
from osmf_pipelines.spark.simulate_logs import Logs, simulate_logs

FIRST_DAY = date(2026, 3, 2)
IMPRESSIONS_PER_USER_DAY = 10
MIN_IMPRESSIONS_PER_DAY = 10_000  # three bots see 4,500
_MIN_USERS = 2_000
_TRUTH_ELSEWHERE = "kept-apart"


@dataclass(frozen=True)
class Workload:
    """How much is logged.

    Attributes:
        impressions_per_day: right impressions a day; users grow with them, 10 impressions a user and day.
        num_days: days of logs from `FIRST_DAY` on.
        num_products: of each of eight categories, 8 pictures each.
        seed: of market and logs.
    """

    impressions_per_day: int
    num_days: int
    num_products: int
    seed: int

    @property
    def days(self) -> list[date]:
        """Every day of the logs."""
        return [FIRST_DAY + timedelta(days=number) for number in range(self.num_days)]


def write_logs(settings: Settings, output: Path, workload: Workload) -> None:
    """Writes `output`/drop; its truth is put where no setting points, as for logs of a real market.

    Raises:
        ValueError: when a setting is impossible, or `output` holds other logs.
    """
    if (output / _TRUTH_ELSEWHERE).is_dir():
        (output / _TRUTH_ELSEWHERE).rename(output / "truth")
    market = realistic_market(
        workload.seed,
        num_products_per_scope=workload.num_products,
        num_users=max(_MIN_USERS, workload.impressions_per_day // IMPRESSIONS_PER_USER_DAY),
    )
    logs = Logs(FIRST_DAY, workload.num_days, workload.impressions_per_day, workload.seed, mess=USUAL)
    simulate_logs(get_spark(settings), market, output, logs)
    (output / "truth").rename(output / _TRUTH_ELSEWHERE)


def _main(request_path: str, result_path: str) -> None:
    request = json.loads(Path(request_path).read_text())
    write_logs(Settings(**request["settings"]), Path(request["output"]), Workload(**request["workload"]))
    Path(result_path).write_text("{}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
