"""Reads a checkpoint into another number of processes, through DeepSpeed's universal format.

That format keeps, for each parameter by name, its fp32 weights and its moments, whole. DeepSpeed converts ZeRO-1 to 3
and reads them again; ZeRO-0, which one process in fp32 runs, has no shards, so that its files are converted here.
Which checkpoint is read, and that it was verified before, belongs in `checkpoint.py`: all of this unpickles.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osmf_models.training import zero

_MOMENTS = ("exp_avg", "exp_avg_sq")
_MODEL_FILE = "mp_rank_00_model_states.pt"


def load_converted(engine: Any, checkpoint: Path, stage_before: int, stage_now: int) -> None:
    """Restores a verified checkpoint that other processes wrote; all processes must call it.

    Args:
        engine: of the processes that run now.
        checkpoint: its folder.
        stage_before: ZeRO stage that wrote it.
        stage_now: ZeRO stage of `engine`.

    Raises:
        ValueError: when one of the stages is 3 and the other is not.
    """
    if (stage_before == 3) != (stage_now == 3):
        raise ValueError(
            f"{checkpoint} was written under ZeRO-{stage_before} and cannot be read under ZeRO-{stage_now}:"
            " resume with the stage that it was trained with."
        )
    workplace = checkpoint.parent / "tmp-universal"
    if zero.rank() == 0:
        shutil.rmtree(workplace, ignore_errors=True)  # what a killed process left is not read
        workplace.mkdir()
        if stage_before:
            zero.convert_to_universal(checkpoint, workplace / "state")
        else:
            _convert_whole(engine, checkpoint, workplace / "state")
    zero.barrier()
    if stage_now:
        _load_shares(engine, workplace, stage_now)
    else:
        _load_whole(engine, workplace / "state")
    zero.barrier()
    if zero.rank() == 0:
        shutil.rmtree(workplace)


def _convert_whole(engine: Any, checkpoint: Path, target: Path) -> None:
    """Writes a ZeRO-0 checkpoint, which holds AdamW's own state, in the universal format."""
    state = _read(checkpoint / _MODEL_FILE)
    optimizer = state["optimizer"]
    for index, (name, shape) in enumerate(_trained(engine)):
        kept = optimizer["state"].get(index, {})  # a parameter that never had a gradient has no moments
        values = {"fp32": state["module"][name].float(), **{key: kept.get(key) for key in _MOMENTS}}
        parameter = target / "zero" / name
        parameter.mkdir(parents=True)
        for key, value in values.items():
            torch.save({"param": torch.zeros(shape) if value is None else value}, parameter / f"{key}.pt")
        torch.save(_num_steps(optimizer), parameter / "step.pt")
    common = {"ds_version": state["ds_version"], "param_groups": optimizer["param_groups"]}
    torch.save(common, target / "zero" / "optimizer_state.pt")
    shutil.copy2(checkpoint / _MODEL_FILE, target)


def _load_shares(engine: Any, folder: Path, stage: int) -> None:
    """Gives every process its share."""
    if stage < 3:  # frozen parameters and buffers, which the universal format does not cover
        engine.module.load_state_dict(_read(folder / "state" / _MODEL_FILE)["module"])
    zero.load_universal(engine, folder, "state")


def _load_whole(engine: Any, state_folder: Path) -> None:
    """Gives AdamW under ZeRO-0 its state back."""
    state = _read(state_folder / _MODEL_FILE)
    engine.module.load_state_dict(state["module"])
    moments: dict[int, dict[str, Any]] = {}
    for index, (name, shape) in enumerate(_trained(engine)):
        parameter = state_folder / "zero" / name
        moments[index] = {key: _read(parameter / f"{key}.pt")["param"].reshape(shape) for key in _MOMENTS}
        moments[index]["step"] = torch.as_tensor(_read(parameter / "step.pt"), dtype=torch.float32)
    (group,) = engine.optimizer.state_dict()["param_groups"]
    (saved,) = _read(state_folder / "zero" / "optimizer_state.pt")["param_groups"]
    engine.optimizer.load_state_dict({"state": moments, "param_groups": [{**saved, "params": group["params"]}]})
    engine.global_steps, engine.skipped_steps = state["global_steps"], state["skipped_steps"]


def _trained(engine: Any) -> list[tuple[str, torch.Size]]:
    """Names and shapes of the trained parameters, in the optimiser's order."""
    return [(name, one.shape) for name, one in engine.module.named_parameters() if one.requires_grad]


def _num_steps(optimizer: dict[str, Any]) -> Tensor:
    """Returns how many steps AdamW took, a scalar."""
    return max(torch.as_tensor(kept["step"], dtype=torch.float32).cpu() for kept in optimizer["state"].values())


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False)
