"""A running average of the trained weights in fp32, shared by the processes as ZeRO shares the optimiser.

    average <- d average + (1 - d) weights  after each step that was taken,  d = min(decay, (1 + n) / (10 + n))

n counts the steps before, so that the first steps are soon forgotten: while d rises it averages over about the last
tenth of the training. Each process keeps the average of its own pieces of the fp32 weights (`masters.py`), so that a
step needs no exchange. It is saved as safetensors, pieces by name and place, which any number of processes can read.
What is handed over belongs in `hand_over.py`.

Source: Polyak and Juditsky 1992; the rise of d as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from osmf_models.training import zero
from osmf_models.training.masters import Piece, held_pieces, whole_parameter

_FORMAT = "osmf-weight-average/1"
_FILES = "average-*.safetensors"


def decay_at(num_updates: int, decay: float) -> float:
    """Returns the share of the average that stays, after `num_updates` updates."""
    return min(decay, (1.0 + num_updates) / (10.0 + num_updates))


class WeightAverage:
    """The average behind an engine, from its weights as they are now; with a decay of 0 there is none.

    Every process must call its methods.

    Args:
        engine: around the model.
        decay: in [0, 1).

    Raises:
        ValueError: when the decay is out of range.
    """

    def __init__(self, engine: Any, decay: float):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"training.ema_decay {decay} must lie in [0, 1).")
        self._engine, self._decay = engine, decay
        held = held_pieces(engine) if decay else []
        self.pieces = [Piece(one.name, one.start, one.values.clone()) for one in held]
        self.num_updates = 0

    @property
    def is_on(self) -> bool:
        """Whether there is an average."""
        return self._decay > 0.0

    @torch.no_grad()
    def after_update(self) -> None:
        """Takes in the weights as they are now; not called for a step that was skipped."""
        if not self.is_on:
            return
        share = 1.0 - decay_at(self.num_updates, self._decay)
        averages, weights = ([one.values for one in pieces] for pieces in (self.pieces, held_pieces(self._engine)))
        if averages:  # a process may hold no piece
            torch._foreach_lerp_(averages, weights, share)
        self.num_updates += 1

    def save(self, folder: Path) -> None:
        """Writes this process's pieces into the folder of a checkpoint."""
        if self.is_on:
            write_pieces(folder / _FILES.replace("*", f"{zero.rank():04d}"), self.pieces, self.num_updates)

    def load(self, folder: Path) -> None:
        """Reads the average from a checkpoint that any number of processes wrote under any ZeRO stage.

        Raises:
            ValueError: when the checkpoint lacks it, or a part of it.
        """
        if self.is_on:
            self.num_updates = read_pieces(folder, self.pieces)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Puts the average in the place of the model's weights, which come back afterwards bit for bit.

        Do not train inside.
        """
        if not self.is_on:
            yield
            return
        own = {piece.name: piece for piece in self.pieces}
        with ExitStack() as given_back:
            for name, parameter in self._engine.module.named_parameters():
                if parameter.requires_grad:
                    held, average = _in_place(parameter, own.get(name))
                    given_back.callback(held.copy_, held.to("cpu", copy=True))
                    held.copy_(average)
            yield


def has_average(checkpoint: Path) -> bool:
    """Returns whether a checkpoint holds an average."""
    return any(checkpoint.glob(_FILES))


def averaged(checkpoint: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns `weights`, by name, with the averages that a checkpoint holds in the place of trained ones.

    Raises:
        ValueError: when it lacks the average, or a part of it.
    """
    names = {name for path in checkpoint.glob(_FILES) for name in _starts(path)}
    pieces = [Piece(name, 0, torch.empty(weights[name].numel())) for name in sorted(names)]
    read_pieces(checkpoint, pieces)
    return {**weights, **{piece.name: piece.values.reshape(weights[piece.name].shape) for piece in pieces}}


def write_pieces(path: Path, pieces: Sequence[Piece], num_updates: int) -> None:
    """Writes pieces of an average as safetensors, with what they are in the metadata."""
    told = {
        "format": _FORMAT,
        "num_updates": str(num_updates),
        "starts": json.dumps({piece.name: piece.start for piece in pieces}),
    }
    save_file({piece.name: piece.values.cpu().contiguous() for piece in pieces}, path, metadata=told)


@torch.no_grad()
def read_pieces(checkpoint: Path, pieces: Sequence[Piece]) -> int:
    """Fills `pieces` from those that a checkpoint holds, and returns the number of updates behind them.

    Raises:
        ValueError: when the checkpoint holds no average, or not all of what is asked for.
    """
    paths = sorted(checkpoint.glob(_FILES))
    if not paths:
        raise ValueError(f"{checkpoint} holds no average of the weights: it was trained with training.ema_decay=0.")
    num_missing = {piece.name: piece.values.numel() for piece in pieces}
    for path in paths:
        starts = _starts(path)
        with safe_open(path, framework="pt") as file:
            for piece in pieces:
                if piece.name in starts:
                    num_missing[piece.name] -= _fill(piece, file.get_slice(piece.name), starts[piece.name])
    lacking = [name for name, count in num_missing.items() if count]
    if lacking:
        raise ValueError(f"{checkpoint} lacks part of the average of {lacking[0]}: it is of another model.")
    return int(_metadata(paths[0])["num_updates"])


def _fill(piece: Piece, stored: Any, start: int) -> int:
    """Copies what a stored piece shares with `piece`, and returns how many values that is."""
    low, high = max(piece.start, start), min(piece.end, start + stored.get_shape()[0])
    if low >= high:
        return 0
    piece.values[low - piece.start : high - piece.start] = stored[low - start : high - start]
    return high - low


def _starts(path: Path) -> dict[str, int]:
    starts: dict[str, int] = json.loads(_metadata(path)["starts"])
    return starts


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
    if told.get("format") != _FORMAT:
        raise ValueError(f"{path} is no average of weights that this version reads ({told.get('format')!r}).")
    return told


def _in_place(parameter: nn.Parameter, piece: Piece | None) -> tuple[Tensor, Tensor]:
    """Returns what this process holds of a parameter of the model, to be written to, and its average."""
    share = getattr(parameter, "ds_tensor", None)
    if share is None:
        return parameter.data, whole_parameter(parameter, piece)
    held = share.data.flatten()[: 0 if piece is None else piece.values.numel()]
    return held, held if piece is None else piece.values
