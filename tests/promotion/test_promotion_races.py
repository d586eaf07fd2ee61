"""Several processes at one alias, and processes that are killed while they move it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess

import pytest
from registered_versions import TinyRegistry, record_of

from osmf_pipelines.promotion.audit import AuditTrail, aliases_of
from osmf_pipelines.promotion.promote import PromotionRefusedError, Promotions, trail_path
from osmf_pipelines.settings import Settings

pytestmark = pytest.mark.slow
NUM_PROCESSES, NUM_ROUNDS = 8, 20
PHASES = ("intended", "champion set", "challenger set", "done")


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that begin with MLflow imported and nothing else of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "osmf_pipelines.promotion.promote"])
    return context


def promote_at_once(settings: Settings, rounds, barrier, answers) -> None:
    """Promotes once all processes have judged, so that each was held against the same champion."""

    def wait_for_all(reached: str) -> None:
        if reached == "judged":
            barrier.wait(600)

    promotions = Promotions(settings, wait_for_all)
    for number in iter(rounds.get, None):
        try:
            promotions.promote(number, by=f"process {os.getpid()}")
            answers.put((number, ""))
        except PromotionRefusedError as refusal:
            answers.put((number, str(refusal)))
        except Exception as error:
            answers.put((number, f"unexpected {error!r}"))


def promote_and_die(settings: Settings, number: int, phase: str) -> None:
    def kill(reached: str) -> None:
        if reached == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    Promotions(settings, kill).promote(number, by="doomed")


def ended(process: BaseProcess) -> int:
    process.start()
    process.join(600)
    assert process.exitcode is not None
    return process.exitcode


def equal_versions(registry: TinyRegistry, count: int) -> list[int]:
    """Versions that were all judged together and are as good as each other."""
    record = record_of(0.04)
    labels = [f"model{i}" for i in range(count)]
    return [registry.add(label, record, **{other: record for other in labels if other != label}) for label in labels]


def test_of_eight_processes_one_wins_every_round(registry, home, processes):
    versions = equal_versions(registry, NUM_PROCESSES + 1)
    champion = versions[0]
    Promotions(home).register(champion, by="test")
    barrier, answers = processes.Barrier(NUM_PROCESSES), processes.Queue()
    queues = [processes.Queue() for _ in range(NUM_PROCESSES)]
    started = [processes.Process(target=promote_at_once, args=(home, one, barrier, answers)) for one in queues]
    for process in started:
        process.start()
    winners = []
    for _ in range(NUM_ROUNDS):
        candidates = [number for number in versions if number != champion]
        for queue, number in zip(queues, candidates, strict=True):
            queue.put(number)
        told = dict(answers.get(timeout=600) for _ in range(NUM_PROCESSES))
        assert set(told) == set(candidates)
        (winner,) = [number for number, refusal in told.items() if not refusal]
        for number in set(candidates) - {winner}:
            assert f"the champion is version {winner} by now, and it was held against {champion}" in told[number]
        assert registry.aliases() == {"champion": winner}
        champion = winner
        winners.append(winner)
    for queue in queues:
        queue.put(None)
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    entries = AuditTrail(trail_path(home)).read()
    asked = [entry for entry in entries if entry.action == "promote"]
    assert [entry.version for entry in asked if entry.state == "done"] == winners
    assert sum(entry.state == "refused" for entry in asked) == NUM_ROUNDS * (NUM_PROCESSES - 1)
    assert sum(entry.state == "intended" for entry in asked) == NUM_ROUNDS
    assert aliases_of(entries).champion == champion


def test_processes_killed_at_every_phase_leave_a_trail_that_agrees(registry, home, processes):
    versions = equal_versions(registry, len(PHASES) + 1)
    promotions = Promotions(home)
    promotions.register(versions[0], by="test")
    for phase, number in zip(PHASES, versions[1:], strict=True):
        champion = registry.aliases()["champion"]
        promotions.register(number, by="asset")
        process = processes.Process(target=promote_and_die, args=(home, number, phase))
        assert ended(process) == -signal.SIGKILL
        in_use = registry.aliases()["champion"]
        assert in_use == (champion if phase == "intended" else number)
        # Whoever comes next finds the lock free, and the trail complete.
        promotions.register(number if in_use == champion else champion, by="next")
        entries = AuditTrail(trail_path(home)).read()
        told = {name: version for name, version in vars(aliases_of(entries)).items() if version}
        assert told == registry.aliases()
        (end,) = [
            one.state for one in entries if one.by == "doomed" and one.version == number and one.state != "intended"
        ]
        assert end == ("dropped" if phase == "intended" else "done")
