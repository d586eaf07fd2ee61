"""Which checkpoint is found whole; nothing here is unpickled."""

import itertools
import json
import logging
import os
import shutil

import pytest

from osmf_models.records import CHECKPOINT_POINTER_NAME
from osmf_models.training import checkpoint
from osmf_models.training.checkpoint import load_checkpoint
from osmf_models.training.manifest import Origin, newest_whole, verified_origin, write_manifest, write_pointer

OLDER, NEWER = "step-0000004", "step-0000008"
SHARDS = ("zero/rank0.pt", "zero/rank1.pt")
CASE_BIT = 5  # e or E: a number says the same with either


def write_checkpoint(folder, step):
    (folder / "zero").mkdir(parents=True)
    for number, name in enumerate(SHARDS):
        (folder / name).write_bytes(f"state {step} {number}".encode())
    write_manifest(folder, Origin(step, world_size=2, zero_stage=1, model_sha256="m", settings={"seed": 0}))


@pytest.fixture
def checkpoints(tmp_path):
    """Two whole checkpoints, beside a folder that is none of them."""
    folder = tmp_path / "checkpoints"
    for step, tag in ((4, OLDER), (8, NEWER)):
        write_checkpoint(folder / tag, step)
    write_checkpoint(tmp_path / "step-0000012", 12)
    write_pointer(folder, NEWER)
    return folder


def flip_bit(path, offset, bit=0):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def truncate(folder):
    (folder / SHARDS[0]).write_bytes(b"stat")


def lengthen(folder):
    (folder / SHARDS[0]).write_bytes((folder / SHARDS[0]).read_bytes() + b"\0")


def flip(folder):
    flip_bit(folder / SHARDS[0], 3)


def lose_shard(folder):
    (folder / SHARDS[1]).unlink()


def swap_shards(folder):
    first, second = ((folder / name).read_bytes() for name in SHARDS)
    (folder / SHARDS[0]).write_bytes(second)
    (folder / SHARDS[1]).write_bytes(first)


def take_shard_of_another(folder):
    shutil.copy(folder.parent / OLDER / SHARDS[0], folder / SHARDS[0])


def add_file(folder):
    (folder / "zero" / "manifest.json").write_text("{}")


def link_shard(folder):
    elsewhere = folder.parent.parent / "elsewhere.pt"
    (folder / SHARDS[0]).rename(elsewhere)
    (folder / SHARDS[0]).symlink_to(elsewhere)


def link_folder(folder):
    folder.rename(folder.parent.parent / NEWER)
    folder.symlink_to(folder.parent.parent / NEWER)


def be_another(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / OLDER, folder)


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def claim_other_processes(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "world_size": 1}))


DAMAGES = {
    truncate: "rank0.pt is damaged",
    lengthen: "rank0.pt is damaged",
    flip: "rank0.pt is damaged",
    lose_shard: "lacks or adds zero/rank1.pt",
    swap_shards: "rank0.pt is damaged",
    take_shard_of_another: "rank0.pt is damaged",
    add_file: "lacks or adds zero/manifest.json",
    link_shard: "rank0.pt is damaged",
    link_folder: "is a link to elsewhere",
    be_another: "damaged or another checkpoint's",
    lose_manifest: "manifest of .* is broken",
    claim_other_processes: "damaged or another checkpoint's",
}


def test_newest_whole_checkpoint_is_used_and_nothing_said(checkpoints, caplog):
    tag, origin = newest_whole(checkpoints)
    assert (tag, origin.step, origin.world_size) == (NEWER, 8, 2)
    assert caplog.records == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_checkpoint_gives_way_to_the_one_before(checkpoints, caplog, damage):
    damage(checkpoints / NEWER)
    with pytest.raises(ValueError, match=DAMAGES[damage]):
        verified_origin(checkpoints / NEWER)
    assert newest_whole(checkpoints)[0] == OLDER
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert NEWER in record.getMessage()
    assert f"checkpoint {OLDER} is whole and used instead" in record.getMessage()


def test_a_flipped_bit_of_any_byte_is_found(checkpoints):
    """Whichever byte of whichever file, the manifest's spaces and exponents included: two bits of each."""
    folder = checkpoints / NEWER
    write_manifest(folder, Origin(8, 2, 1, "m", {"learning_rate": 1e-05}))
    assert b"1e-05" in (folder / "manifest.json").read_bytes()
    for path in (*(folder / name for name in SHARDS), folder / "manifest.json"):
        before = path.read_bytes()
        for offset, bit in itertools.product(range(len(before)), (0, CASE_BIT)):
            flip_bit(path, offset, bit)
            with pytest.raises(ValueError, match=r"damaged|broken"):
                verified_origin(folder)
            path.write_bytes(before)
    assert verified_origin(folder).settings == {"learning_rate": 1e-05}


def test_whatever_the_pointer_says_the_newest_whole_checkpoint_is_used(checkpoints):
    pointer = checkpoints / CHECKPOINT_POINTER_NAME
    before = pointer.read_bytes()
    for offset, bit in itertools.product(range(len(before)), range(8)):
        flip_bit(pointer, offset, bit)
        assert newest_whole(checkpoints)[0] == NEWER
        pointer.write_bytes(before)


def test_no_whole_checkpoint_is_an_error_and_no_fresh_start(checkpoints, tmp_path):
    for tag in (OLDER, NEWER):
        truncate(checkpoints / tag)
    with pytest.raises(ValueError, match=f"no whole checkpoint.*{NEWER}.*damaged.*{OLDER}.*damaged.*Without --resume"):
        newest_whole(checkpoints)
    with pytest.raises(ValueError, match="nothing to resume"):
        newest_whole(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing or broken"),
        ("{}", "missing or broken"),
        ('{"tag": "../step-0000012"}', "points to '../step-0000012', which is no checkpoint here"),
        ('{"tag": "step-0000012"}', "points to 'step-0000012', which is no checkpoint here"),
        ('{"tag": ["step-0000008"]}', "which is no checkpoint here"),
    ],
)
def test_broken_pointer_is_told_and_the_newest_whole_checkpoint_used(checkpoints, caplog, text, message):
    (checkpoints / CHECKPOINT_POINTER_NAME).write_text(text)
    assert newest_whole(checkpoints)[0] == NEWER
    assert message in caplog.text


def test_pointer_that_a_kill_left_behind_is_overtaken(checkpoints):
    write_pointer(checkpoints, OLDER)
    assert newest_whole(checkpoints)[0] == NEWER


def test_unreadable_file_is_damage(checkpoints):
    (checkpoints / NEWER / SHARDS[0]).unlink()
    os.mkfifo(checkpoints / NEWER / "pipe")
    assert newest_whole(checkpoints)[0] == OLDER


def test_broken_checkpoint_never_reaches_deepspeed(checkpoints, monkeypatch):
    """DeepSpeed unpickles what it loads, so a damaged file must be refused before."""

    def unpickle(*_):
        raise AssertionError("reached DeepSpeed")

    for name in ("load_sharded", "load_universal", "convert_to_universal"):
        monkeypatch.setattr(f"osmf_models.training.zero.{name}", unpickle)
    monkeypatch.setattr("osmf_models.training.zero.from_first_rank", lambda make: make())
    for tag in (OLDER, NEWER):
        flip(checkpoints / tag)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(None, checkpoints, None)


def test_as_many_checkpoints_are_kept_as_are_needed_to_fall_back(checkpoints):
    """Those newer than the one just written are of a course that was given up."""
    write_checkpoint(checkpoints / "step-0000006", 6)
    checkpoint._prune(checkpoints, "step-0000006")
    assert sorted(path.name for path in checkpoints.glob("step-*")) == [OLDER, "step-0000006"]
