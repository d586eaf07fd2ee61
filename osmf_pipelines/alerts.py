"""Where the news of a failed run goes: a file of the lake's home, and an address that the settings may name.

What a run's failure was belongs in `sensors.py`.
"""

from __future__ import annotations

import json
import urllib.request
from dataclasses import asdict, dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Alert:
    """One failed run; holds no personal data.

    Attributes:
        time: when the run ended (UTC).
        job: its job.
        partition: its day, or "first...last" of a range of days; None for a job without days.
        run_id: as Dagster's pages show it.
        failed_step: the first step that failed; None when the run ended outside its steps.
        message: what the failure says of itself.
    """

    time: datetime
    job: str
    partition: str | None
    run_id: str
    failed_step: str | None
    message: str

    @property
    def json(self) -> str:
        """The alert as one line of JSON."""
        return json.dumps({**asdict(self), "time": self.time.isoformat()})


def append_alert(path: Path, alert: Alert) -> None:
    """Adds the alert to the JSON Lines file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{alert.json}\n")


def post_alert(url: str, alert: Alert) -> None:
    """Posts the alert as JSON to `url`.

    Raises:
        ConnectionError: when it is not taken. The address is not repeated: it may be a secret.
    """
    try:
        request = urllib.request.Request(url, alert.json.encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except (OSError, HTTPException, ValueError) as error:
        reason = str(error) if isinstance(error, OSError) else type(error).__name__
        raise ConnectionError(f"OSMF_ALERT_URL did not take the alert of run {alert.run_id}: {reason}") from None
