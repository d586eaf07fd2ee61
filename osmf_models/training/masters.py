"""The fp32 weights behind a model in training: the pieces that each process keeps, and all of them whole.

AdamW moves fp32 weights, whatever the precision of the model. Under ZeRO-1 and 2 they are DeepSpeed's own copy, cut
into one piece for each process wherever that falls; under ZeRO-3 each process holds a piece of every parameter. Under
ZeRO-0 they are whole on every process, the parameters themselves or in bf16 a copy, and each answers for its share of
every parameter. Averaging them belongs in `averages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from osmf_models.training import zero

_MODEL_FILE = "mp_rank_00_model_states.pt"


@dataclass(frozen=True)
class Piece:
    """Part of a parameter's fp32 values.

    Attributes:
        name: of the parameter in the model.
        start: place of the first value in the flattened parameter.
        values: (length of the piece,).
    """

    name: str
    start: int
    values: Tensor

    @property
    def end(self) -> int:
        """Place behind the last value."""
        return self.start + self.values.numel()


def held_pieces(engine: Any) -> list[Piece]:
    """Returns the pieces of the trained parameters that this process answers for; they share the optimiser's memory.

    Over all processes each value is in one piece. Fetch them anew where they are read: loading may replace them.
    """
    copies = _whole_copies(engine)
    pieces = (_held_piece(name, one, copies) for name, one in engine.module.named_parameters() if one.requires_grad)
    return [piece for piece in pieces if piece is not None and piece.values.numel()]


def whole_weights(engine: Any, pieces: Sequence[Piece]) -> dict[str, Tensor]:
    """Returns the model's weights and persistent buffers by name, on the CPU, floats in fp32; all must call it.

    Shared parameters come once. Other processes than the first get an empty dict.

    Args:
        engine: around the model.
        pieces: this process's values of the trained parameters, laid out as `held_pieces` lays them out.
    """
    own = {piece.name: piece for piece in pieces}
    weights: dict[str, Tensor] = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            value = whole_parameter(parameter, own.get(name))
        else:
            with zero.whole_parameters([parameter]):
                value = parameter.detach().clone()
        if zero.rank() == 0:
            weights[name] = _as_saved(value)
    if zero.rank() == 0:
        weights |= {name: _as_saved(value) for name, value in persistent_buffers(engine.module).items()}
    return weights


def whole_parameter(parameter: nn.Parameter, piece: Piece | None) -> Tensor:
    """Returns a trained parameter put together of all processes' pieces, in its shape, fp32; all must call it."""
    shape = getattr(parameter, "ds_shape", parameter.shape)
    flat = torch.zeros(shape.numel(), device=zero.device())
    if piece is not None:
        flat[piece.start : piece.end] = piece.values
    return zero.filled_by_ranks(flat).reshape(shape)


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Returns what `model` saves besides its parameters."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict().items() if name not in names}


def checkpoint_weights(checkpoint: Path, zero_stage: int, trained: Sequence[str]) -> dict[str, Tensor]:
    """Returns what `whole_weights` would have, from a checkpoint of any ZeRO stage; shared parameters by each name.

    It needs neither processes nor a model. It unpickles: verify the checkpoint first.

    Args:
        checkpoint: its folder.
        zero_stage: of the engine that wrote it.
        trained: names of the trained parameters, in the model's order.
    """
    weights: dict[str, Tensor] = {}
    if zero_stage < 3:  # frozen parameters are whole in one file
        state = torch.load(checkpoint / _MODEL_FILE, map_location="cpu", weights_only=False)
        weights |= state["module"]
    if zero_stage:
        weights |= zero.read_sharded(checkpoint)
    elif copies := [copy for group in state["optimizer"].get("fp32_groups", []) for copy in group]:
        weights |= dict(zip(trained, copies, strict=True))
    return {name: _as_saved(value) for name, value in weights.items()}


def _whole_copies(engine: Any) -> dict[int, Tensor]:
    """Returns the fp32 copies that ZeRO-0 keeps of bf16 parameters, by the identity of the parameter."""
    if not hasattr(engine.optimizer, "fp32_groups"):
        return {}
    groups = zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups, strict=True)
    return {id(one): copy for group in groups for one, copy in zip(*group, strict=True)}


def _held_piece(name: str, parameter: Any, copies: dict[int, Tensor]) -> Piece | None:
    rank = zero.rank()
    if hasattr(parameter, "ds_id"):  # ZeRO-3
        length = parameter.ds_tensor.numel()
        past = max(0, min(length, parameter.ds_numel - rank * length))  # behind it is only padding
        values = parameter._z3_optimizer.get_local_fp32_param(parameter)
        return Piece(name, rank * length, values.detach().flatten()[:past])
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        return None if mapping is None else Piece(name, mapping.lp_fragment_address.start, mapping.hp_fragment.detach())
    flat = copies.get(id(parameter), parameter).detach().flatten()
    length = -(-flat.numel() // zero.world_size())
    return Piece(name, rank * length, flat[rank * length : (rank + 1) * length])


def _as_saved(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).contiguous()
