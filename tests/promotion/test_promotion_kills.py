"""Moves of aliases that a kill left half-way: how the next one to come ends them, whatever was set by hand since."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from registered_versions import TinyRegistry, lines_of, record_of, trail_agrees

from osmf_pipelines.promotion.promote import PromotionRefusedError, Promotions, trail_path
from osmf_pipelines.settings import Settings

CHAMPION, BETTER = record_of(0.04), record_of(0.05)


class Killed(BaseException):
    """Ends a step as a kill does: no code of ours runs after it."""


@pytest.mark.parametrize(
    ("phase", "winner"),
    [("intended", "first"), ("champion set", "second"), ("challenger set", "second"), ("done", "second")],
)
@pytest.mark.parametrize("after", ["rollback", "promote"])
def test_a_kill_at_any_point_leaves_a_trail_that_agrees(registry, home, promotions, champion, phase, winner, after):
    second = registry.add("second", BETTER, first=CHAMPION)
    third = registry.add("third", record_of(0.06), first=CHAMPION, second=BETTER)
    promotions.register(second, by="asset")

    def kill(reached: str) -> None:
        if reached == phase:
            raise Killed

    with pytest.raises(Killed):
        Promotions(home, kill).promote(by="ada")
    in_use = {"first": champion, "second": second}[winner]
    assert registry.aliases()["champion"] == in_use
    if after == "promote":
        assert promotions.promote(third, by="bob").alias == "champion"
        assert promotions.rollback(by="bob").version == in_use
    elif winner == "second":
        assert promotions.rollback(by="bob").version == champion
    else:
        with pytest.raises(ValueError, match="no champion before"):
            promotions.rollback(by="bob")
    trail_agrees(registry)
    lines = lines_of(trail_path(home))
    ends = [line["state"] for line in lines if line["action"] == "promote" and line["version"] == second]
    assert ends == ["intended", "dropped" if winner == "first" else "done"]


def killed_at(home: Settings, phase: str, ask: Callable[[Promotions], object]) -> None:
    """Asks for a move that ends at a phase."""

    def kill(reached: str) -> None:
        if reached == phase:
            raise Killed

    with pytest.raises(Killed):
        ask(Promotions(home, kill))


def set_by_hand(registry: TinyRegistry, alias: str, number: int | None) -> None:
    """As on MLflow's page."""
    if number is None:
        registry.client.delete_registered_model_alias("shop", alias)
    else:
        registry.client.set_registered_model_alias("shop", alias, str(number))


def end_of(home: Settings, action: str) -> str:
    """How the newest move of a kind ended."""
    return [line["state"] for line in lines_of(trail_path(home)) if line["action"] == action][-1]


# Where the move was killed, what somebody did by hand before the next one came, what there is then, how it ended.
# A kill at `intended` has moved nothing, one at `champion set` all but the challenger.
MEANWHILE = {
    "the challenger is taken away": ("intended", {"challenger": None}, {"champion": 1}, "dropped"),
    "and another becomes champion": ("intended", {"challenger": None, "champion": 3}, {"champion": 3}, "dropped"),
    "another becomes champion": ("intended", {"champion": 3}, {"champion": 3, "challenger": 2}, "dropped"),
    "the champion is taken back": ("champion set", {"champion": 1}, {"champion": 1, "challenger": 2}, "dropped"),
    "there is another challenger": ("champion set", {"challenger": 3}, {"champion": 2, "challenger": 3}, "done"),
    "nothing": ("champion set", {}, {"champion": 2}, "done"),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_after_a_kill_the_champion_alone_says_how_its_move_ended(registry, home, promotions, champion, meanwhile):
    phase, by_hand, expected, end = MEANWHILE[meanwhile]
    registry.add("second", BETTER, first=CHAMPION)
    registry.add("third", record_of(0.06), first=CHAMPION, second=BETTER)
    ugly = registry.add("ugly", record_of(0.9, quality=0.5))
    promotions.register(2, by="asset")
    killed_at(home, phase, lambda doomed: doomed.promote(by="ada"))
    for alias, number in by_hand.items():
        set_by_hand(registry, alias, number)
    assert promotions.register(ugly, by="next").alias == ""
    assert registry.aliases() == expected
    assert end_of(home, "promote") == end
    trail_agrees(registry)


@pytest.mark.parametrize(
    ("phase", "by_hand", "expected", "end"),
    [
        ("intended", {}, {"champion": 1}, "dropped"),
        ("intended", {"champion": 3}, {"champion": 3}, "dropped"),
        ("challenger set", {}, {"champion": 1, "challenger": 2}, "done"),
        ("challenger set", {"champion": 3}, {"champion": 3, "challenger": 2}, "done"),
        ("challenger set", {"challenger": None}, {"champion": 1}, "dropped"),
        ("challenger set", {"challenger": 3}, {"champion": 1, "challenger": 3}, "dropped"),
    ],
)
def test_after_a_kill_the_challenger_says_how_a_move_of_it_alone_ended(
    registry, home, promotions, champion, phase, by_hand, expected, end
):
    registry.add("second", BETTER, first=CHAMPION)
    registry.add("third", record_of(0.06), first=CHAMPION, second=BETTER)
    ugly = registry.add("ugly", record_of(0.9, quality=0.5))
    killed_at(home, phase, lambda doomed: doomed.register(2, by="asset"))
    for alias, number in by_hand.items():
        set_by_hand(registry, alias, number)
    with pytest.raises(PromotionRefusedError):
        promotions.promote(ugly, by="next")
    assert registry.aliases() == expected
    assert end_of(home, "register") == end
    trail_agrees(registry)
