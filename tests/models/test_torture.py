"""Campaigns of faults against one small training: kills at random points, one after the other, then damage.

Whatever happened, the training goes on from the newest whole checkpoint, names what was damaged, and ends with the
losses and weights of the run that was left alone, bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from training_job import Job, Outcome, restarted, run

from osmf_models.config import ZeroConfig
from osmf_models.records import CHECKPOINT_POINTER_NAME
from osmf_models.training.checkpoint import PHASES
from osmf_models.training.manifest import checkpoint_tags, newest_whole, verified_origin

pytestmark = pytest.mark.torture

SPREADS = ((1, 1), (2, 1), (2, 2), (2, 3))  # processes, ZeRO stage
NUM_STEPS, SAVED = 8, (2, 4, 6)
MOST_DELAY_SECONDS = 0.05
Draw = random.Random
Damage = Callable[[Path, Draw], None]


def a_file(folder: Path, draw: Draw) -> Path:
    return draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def flip_a_bit(folder: Path, draw: Draw) -> None:
    path = a_file(folder, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut_a_file(folder: Path, draw: Draw) -> None:
    path = a_file(folder, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def lose_a_file(folder: Path, draw: Draw) -> None:
    a_file(folder, draw).unlink()


def swap_two_files(folder: Path, draw: Draw) -> None:
    first = a_file(folder, draw)
    others = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() != first.read_bytes()]
    second = draw.choice(sorted(others))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def take_a_file_of_the_one_before(folder: Path, draw: Draw) -> None:
    tags = checkpoint_tags(folder.parent)
    if len(tags) < 2:
        lose_a_file(folder, draw)
        return
    before = folder.parent / tags[1]
    names = [path.relative_to(before) for path in before.rglob("*") if path.is_file()]
    differing = [name for name in names if (before / name).read_bytes() != (folder / name).read_bytes()]
    name = draw.choice(sorted(differing))
    (folder / name).write_bytes((before / name).read_bytes())


def point_elsewhere(folder: Path, draw: Draw) -> None:
    (folder.parent / CHECKPOINT_POINTER_NAME).write_text(draw.choice(POINTERS))


POINTERS = ('{"tag": "../elsewhere/step-0000004"}', '{"tag": "step-0000099"}', "", '{"tag": ')
DAMAGES = (flip_a_bit, cut_a_file, lose_a_file, swap_two_files, take_a_file_of_the_one_before, point_elsewhere)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Outcome]:
    """Returns how a training by so many processes under a ZeRO stage ends when nothing happens to it."""
    ended: dict[tuple[int, int], Outcome] = {}

    def outcome(world_size: int, stage: int) -> Outcome:
        if (world_size, stage) not in ended:
            job = Job(tmp_path_factory.mktemp("alone"), world_size, ZeroConfig(stage))
            ended[world_size, stage] = run(job)
            assert ended[world_size, stage].exit_codes == [0] * world_size
        return ended[world_size, stage]

    return outcome


def points_after(first_step: int, world_size: int) -> Iterator[tuple[str, int, int]]:
    """All points that a training comes to that goes on after `first_step` steps."""
    ranks = range(world_size)
    for step in range(first_step, NUM_STEPS):
        yield from ((phase, step, rank) for phase in ("step", "report") for rank in ranks)
    for step in (one for one in SAVED if one > first_step):
        yield from ((phase, step, rank) for phase in PHASES for rank in (ranks if phase == "shards" else (0,)))


def killed_once(job: Job, draw: Draw, least_step: int) -> None:
    """Goes on with a job until a random process is killed at a random point, or some time after one."""
    folder = job.output / "checkpoints"
    is_resumed = bool(checkpoint_tags(folder))
    first_step = newest_whole(folder)[1].step if is_resumed else 0
    points = [point for point in points_after(first_step, job.world_size) if point[1] >= least_step]
    phase, step, rank = draw.choice(points)
    # After the last step but one a delay might outlast the training.
    delay = draw.uniform(0.001, MOST_DELAY_SECONDS) if step < NUM_STEPS - 2 and draw.random() < 0.5 else 0.0
    outcome = run(replace(job, killed_at=(phase, step, rank), kill_delay_seconds=delay, is_resumed=is_resumed))
    print(f"killed at {phase} {step} of process {rank}, {1000 * delay:.0f} ms later: exit codes {outcome.exit_codes}")
    assert -9 in outcome.exit_codes
    if delay == 0.0:
        assert outcome.exit_codes[rank] == -9


def damaged(folder: Path, damage: Damage, draw: Draw) -> str:
    """Damages the newest checkpoint or the pointer, and returns what the log must name."""
    newest = folder / checkpoint_tags(folder)[0]
    damage(newest, draw)
    print(f"{damage.__name__} in {newest.name}")
    if damage is point_elsewhere:
        assert newest_whole(folder)[0] == newest.name
        return CHECKPOINT_POINTER_NAME
    with pytest.raises(ValueError, match=newest.name):
        verified_origin(newest)
    return newest.name


@pytest.mark.parametrize(("world_size", "stage"), SPREADS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_kills_and_damage_change_nothing_in_the_end(left_alone, tmp_path, damage, world_size, stage):
    """Up to three kills, each at a named point's very moment or somewhat later, and the damage before it goes on."""
    draw = random.Random(f"{damage.__name__} {world_size} {stage}")
    job, folder = Job(tmp_path, world_size, ZeroConfig(stage)), tmp_path / "checkpoints"
    (tmp_path / "elsewhere" / "step-0000004").mkdir(parents=True)
    for _ in range(draw.randint(0, 2)):
        killed_once(job, draw, least_step=0)
    killed_once(job, draw, least_step=SAVED[0] + 1)  # by then there is a checkpoint to damage
    told, num_left = damaged(folder, damage, draw), len(checkpoint_tags(folder))
    again = restarted(job)
    if damage is not point_elsewhere and num_left == 1:
        assert again.exit_codes == [2] * world_size
        assert all("holds no whole checkpoint" in error and told in error for error in again.errors)
        again = run(job)
    else:
        assert told in again.logs[0]
        assert "is whole and used instead" in again.logs[0]
    whole = left_alone(world_size, stage)
    assert again.exit_codes == [0] * world_size, again.logs
    assert (again.losses, again.weights) == (whole.losses, whole.weights)


@pytest.mark.parametrize(("world_size", "stage"), SPREADS)
def test_a_flipped_bit_of_any_byte_is_found(tmp_path, world_size, stage):
    """Every byte of every file of a real checkpoint, a random bit of each."""
    draw = random.Random(stage)
    config = replace(Job(tmp_path).config, num_steps=3, ema_decay=0.5)
    assert run(Job(tmp_path, world_size, ZeroConfig(stage), config)).exit_codes == [0] * world_size
    (tag,) = checkpoint_tags(tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / tag
    num_bytes = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        before = path.read_bytes()
        for offset in range(len(before)):
            changed = bytearray(before)
            changed[offset] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"damaged|broken"):
                verified_origin(folder)
        path.write_bytes(before)
        num_bytes += len(before)
    verified_origin(folder)
    print(f"{num_bytes} bytes, a bit of each flipped, all found")
