"""What a real log gets wrong, and how much of it a simulated one gets: settings and kinds.

The first letter of an event's id tells what it is, for tests and for no one else. Rows belong in `wrong_events.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

# What a row is, and the letter that its id begins with.
IMPRESSION_KINDS = {
    "impression": "i",
    "impression delivered twice": "i",
    "impression delivered again a day later": "i",
    "impression shown to a bot": "b",
    "impression without a user": "m",
    "impression of an unknown creative": "k",
    "impression at position 0": "p",
    "impression told in two ways": "x",
    "impression by a wrong clock": "s",
}
CLICK_KINDS = {
    "click": "c",
    "click delivered twice": "c",
    "click delivered again a day later": "c",
    "second click on an impression": "d",
    "click without an impression": "o",
    "click before its impression": "w",
    "click a day after its impression": "v",
    "click of a bot": "y",
    "click without an impression id": "n",
    "click told in two ways": "z",
}
UNDELIVERED = "click on an undelivered impression"
BOT_IMPRESSIONS = 1_500


@dataclass(frozen=True)
class Mess:
    """How much of each; a share is of the day's impressions unless said otherwise.

    Attributes:
        duplicate_share: of impressions and of clicks that come twice on a day, in two files.
        redelivered_share: of impressions and of clicks that come again on the next day.
        late_share: of clicks that are delivered 1 to 4 days late.
        double_click_share: of clicks that are followed by a second one.
        malformed_share: extra impressions without a user, of an unknown creative or at position 0, each; as many of
            the clicks come once more without an impression id.
        conflict_share: extra impressions told in two ways under one id; as many of the clicks too.
        orphan_share: extra clicks whose impression is nowhere.
        skewed_share: extra impressions dated a day later, and extra clicks before their impression.
        outside_share: extra clicks more than a day after their impression.
        num_bots: users a day who see 1,500 pictures each.
        missing_days: indices of days that are not delivered at all.
        half_days: indices of days of which half is not delivered: impressions, and the clicks of the day on them.
        drifted_days: indices of days whose impressions come with a renamed column.

    Raises:
        ValueError: for what is no share or no count.
    """

    duplicate_share: float = 0.0
    redelivered_share: float = 0.0
    late_share: float = 0.0
    double_click_share: float = 0.0
    malformed_share: float = 0.0
    conflict_share: float = 0.0
    orphan_share: float = 0.0
    skewed_share: float = 0.0
    outside_share: float = 0.0
    num_bots: int = 0
    missing_days: tuple[int, ...] = ()
    half_days: tuple[int, ...] = ()
    drifted_days: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value < 1:
                raise ValueError(f"{name} is {value}: it must lie in [0, 1).")
        if self.num_bots < 0 or any(day < 0 for day in (*self.missing_days, *self.half_days, *self.drifted_days)):
            raise ValueError("the number of bots and the indices of days must not be negative.")


CLEAN = Mess()
USUAL = Mess(
    duplicate_share=0.002,
    redelivered_share=0.0005,
    late_share=0.02,
    double_click_share=0.01,
    malformed_share=0.0007,
    conflict_share=0.0005,
    orphan_share=0.0003,
    skewed_share=0.0003,
    outside_share=0.0001,
    num_bots=3,
)


def check_mess(mess: Mess, impressions_per_day: int, num_days: int) -> None:
    """Checks that a mess fits into the logs.

    Raises:
        ValueError: when it does not.
    """
    if mess.num_bots * BOT_IMPRESSIONS > impressions_per_day:
        raise ValueError(
            f"{mess.num_bots} bots see {BOT_IMPRESSIONS} pictures each, more than {impressions_per_day} impressions a "
            "day: take fewer bots or more impressions."
        )
    for name in ("missing_days", "half_days", "drifted_days"):
        if any(day >= num_days for day in getattr(mess, name)):
            raise ValueError(f"{name} names a day that is not among the {num_days} days of the logs.")
