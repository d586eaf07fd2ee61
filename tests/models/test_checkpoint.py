import json

import pytest

from osmf_models.records import CHECKPOINT_POINTER_NAME
from osmf_models.training.checkpoint import load_checkpoint, verified_tag, write_manifest


@pytest.fixture
def checkpoints(tmp_path):
    (tmp_path / "step-0000004" / "zero").mkdir(parents=True)
    (tmp_path / "step-0000004" / "zero" / "rank0.pt").write_bytes(b"state")
    write_manifest(tmp_path / "step-0000004", step=4, world_size=2)
    (tmp_path / CHECKPOINT_POINTER_NAME).write_text(json.dumps({"tag": "step-0000004"}))
    return tmp_path


def test_whole_checkpoint_is_accepted(checkpoints):
    assert verified_tag(checkpoints, world_size=2) == "step-0000004"


def test_no_checkpoint_is_an_error_and_no_fresh_start(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume"):
        verified_tag(tmp_path, world_size=1)


@pytest.mark.parametrize("text", ["", "{}", '{"tag": "step-0000009"}'])
def test_broken_pointer_is_refused(checkpoints, text):
    (checkpoints / CHECKPOINT_POINTER_NAME).write_text(text)
    with pytest.raises(ValueError, match="pointer or manifest is broken"):
        verified_tag(checkpoints, world_size=2)


def test_other_number_of_processes_is_refused(checkpoints):
    with pytest.raises(ValueError, match="written by 2 processes, now 1"):
        verified_tag(checkpoints, world_size=1)


@pytest.mark.parametrize("content", [b"stat", b"stats", b"staty"])
def test_damaged_file_is_refused(checkpoints, content):
    (checkpoints / "step-0000004" / "zero" / "rank0.pt").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        verified_tag(checkpoints, world_size=2)


def test_added_file_is_refused(checkpoints):
    (checkpoints / "step-0000004" / "more.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"lacks or adds \['more.pt'\]"):
        verified_tag(checkpoints, world_size=2)


def test_broken_checkpoint_never_reaches_deepspeed(checkpoints, monkeypatch):
    """DeepSpeed unpickles what it loads, so a damaged file must be refused before."""

    def unpickle(*_):
        raise AssertionError("reached DeepSpeed")

    monkeypatch.setattr("osmf_models.training.zero.load_sharded", unpickle)
    monkeypatch.setattr("osmf_models.training.zero.world_size", lambda: 2)
    (checkpoints / "step-0000004" / "zero" / "rank0.pt").write_bytes(b"evil!")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(engine=None, folder=checkpoints)
