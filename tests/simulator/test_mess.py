"""How much may go wrong: what is no share, no count or no day of the logs is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from osmf_models.simulator.mess import Mess, check_mess

SHARES = [field.name for field in fields(Mess) if field.name.endswith("_share")]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share, value):
    with pytest.raises(ValueError, match=rf"{share} is {value}: it must lie in \[0, 1\)"):
        Mess(**{share: value})


@pytest.mark.parametrize(
    "settings", [{"num_bots": -1}, {"missing_days": (-1,)}, {"half_days": (0, -2)}, {"drifted_days": (-1,)}]
)
def test_negative_counts_are_refused(settings):
    with pytest.raises(ValueError, match="must not be negative"):
        Mess(**settings)


def test_a_mess_that_does_not_fit_into_the_logs_is_refused():
    check_mess(Mess(num_bots=2, half_days=(6,)), 3_000, 7)
    with pytest.raises(ValueError, match="2 bots see 1500 pictures each, more than 2999 impressions"):
        check_mess(Mess(num_bots=2), 2_999, 7)
    for name in ("missing_days", "half_days", "drifted_days"):
        with pytest.raises(ValueError, match=f"{name} names a day that is not among the 7 days"):
            check_mess(Mess(**{name: (7,)}), 3_000, 7)
