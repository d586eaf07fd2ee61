"""Reference errors of every pair that a Group-DPO run will see, computed once and kept as one small file.

Noise, time and dropout of a pair depend on (seed, step, index in the global batch) alone, so the frozen model need not
run beside the policy: before the first step the policy *is* the reference, and its errors are noted. Which errors a
step needs belongs in `preference_step.py`.

Shapes: `S` steps, `B` pairs of the global batch, `K` errors of a pair, `V` held-out pairs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from osmf_models.config import RunConfig
from osmf_models.records import REFERENCE_NAME, RUN_RECORD_NAME
from osmf_models.training import zero
from osmf_models.training.manifest import file_sha256

logger = logging.getLogger(__name__)

_FORMAT = "osmf-reference-errors/1"
_LOG_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class ReferenceErrors:
    """The reference's errors: `steps` (S, B, K) of training, `held_out` (V, 2) of pairs to judge, on the CPU."""

    steps: Tensor
    held_out: Tensor

    def of_rank(self, rank: int, world_size: int) -> Tensor:
        """Returns what one of `world_size` processes trains with, (S, B / world size, K)."""
        return self.steps.chunk(world_size, dim=1)[rank]


@dataclass(frozen=True)
class ReferenceKey:
    """What reference errors depend on: two runs with equal fields share them, whatever else differs."""

    fields: dict[str, Any]

    @classmethod
    def of(cls, config: RunConfig, pretrained_sha256: str, data_hash: str) -> ReferenceKey:
        """Returns the key of a run.

        The number of steps is left out: a longer file serves a shorter run. So are beta, weights, labels, learning
        rates and how the work is spread over processes.

        Args:
            config: of the run.
            pretrained_sha256: of the reference's files.
            data_hash: of the training export.
        """
        dpo = config.dpo
        drawn_by = ("error_space", "time_power", "pair_groups", "has_unsure_pairs", "is_group_balanced")
        judged_by = ("num_evaluation_pairs", "num_evaluation_draws")
        return cls(
            {
                "format": _FORMAT,
                "pretrained_sha256": pretrained_sha256,
                "data_hash": data_hash,
                "precision": config.zero.precision,
                "held_out_groups": list(config.data.held_out_groups),
                "seed": dpo.training.seed,
                "batch_size": dpo.training.batch_size,
                "has_contrast": dpo.contrast_weight > 0.0,
                **{name: getattr(dpo, name) for name in drawn_by + judged_by},
            }
        )

    @property
    def text(self) -> str:
        """The fields in one canonical line."""
        return json.dumps(self.fields, sort_keys=True)

    def path(self, folder: Path) -> Path:
        """Returns where the errors of this key lie inside `folder`."""
        return folder / f"reference-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}.safetensors"


def verified_pretrained(pretrained: Path) -> str:
    """Returns the hash of the model in a pretraining's output folder, after checking every file against its record.

    Raises:
        ValueError: when the pretraining has not finished, or its model is not the one that its record names.
    """
    record_path = pretrained / RUN_RECORD_NAME
    if not (pretrained / "model" / "model_index.json").is_file():
        raise ValueError(f"{pretrained / 'model'} holds no pretrained model: run stage pretrain first.")
    if not record_path.is_file():
        raise ValueError(f"{pretrained} has no {RUN_RECORD_NAME}: its pretraining has not finished.")
    record = json.loads(record_path.read_text())
    for name, sha256 in record["artifacts"].items():
        path = pretrained / name
        if not path.is_file() or file_sha256(path) != sha256:
            raise ValueError(f"{path} is not the file that {record_path} names: the reference would be another model.")
    return str(record["artifact_sha256"])


def check_same_reference(output: Path, key: ReferenceKey, is_resumed: bool) -> None:
    """Writes beside the run what its reference is, or compares when the run is resumed.

    Raises:
        ValueError: when a resumed run was started from another reference, or from other draws.
    """
    path = output / REFERENCE_NAME
    if is_resumed:
        if not path.is_file():
            raise ValueError(f"cannot resume: {path} is missing, which tells what the run's reference is.")
        before = json.loads(path.read_text())
        other = [name for name in key.fields if before.get(name) != key.fields[name]]
        if other:
            raise ValueError(f"cannot resume: {output} was started with another {', '.join(other)}.")
    elif zero.rank() == 0:
        output.mkdir(parents=True, exist_ok=True)
        temporary = output / f".{path.name}.tmp"
        temporary.write_text(key.text)
        temporary.replace(path)


def errors_of_steps(errors_of: Callable[[int], Tensor], num_steps: int) -> Tensor:
    """Returns the errors of all steps' global batches, (S, B, K); every process must call it.

    Args:
        errors_of: step → errors of this process's pairs, (B / world size, K).
        num_steps: `S`.
    """
    rows, told = [], time.monotonic()
    for step in range(num_steps):
        rows.append(errors_of(step))
        if time.monotonic() - told > _LOG_EVERY_SECONDS and zero.rank() == 0:
            told = time.monotonic()
            logger.info("reference errors of step %d/%d", step + 1, num_steps)
    parts = zero.all_ranks(torch.stack(rows)[None])  # (ranks, S, B / ranks, K)
    return parts.transpose(0, 1).flatten(1, 2).cpu()


def read_or_compute(
    folder: Path,
    key: ReferenceKey,
    num_steps: int,
    num_held_out: int,
    num_errors: int,
    compute: Callable[[], ReferenceErrors],
) -> ReferenceErrors:
    """Returns the errors of `key` from `folder`, or computes and writes them; every process must call it.

    Args:
        folder: of the files; the first process alone reads and writes it.
        key: what the errors depend on.
        num_steps: `S`.
        num_held_out: `V`.
        num_errors: `K`.
        compute: makes them.

    Raises:
        ValueError: when the file is damaged or another key's.
    """
    path = key.path(folder)
    found = read_errors(path, key, num_steps) if zero.rank() == 0 else None
    if not zero.is_true_on_first(found is not None):
        computed = compute()
        if zero.rank() == 0:
            write_errors(path, key, computed)
        return computed
    if found is None:
        batch = key.fields["batch_size"]
        found = ReferenceErrors(torch.empty(num_steps, batch, num_errors), torch.empty(num_held_out, 2))
    else:
        logger.info("reference errors read from %s", path)
    return ReferenceErrors(zero.from_first(found.steps), zero.from_first(found.held_out))


def read_errors(path: Path, key: ReferenceKey, num_steps: int) -> ReferenceErrors | None:
    """Returns the first `num_steps` steps' errors in `path`, or None where there is no file, or a shorter one.

    Raises:
        ValueError: when the file is damaged or another key's.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("key")
            errors = ReferenceErrors(file.get_tensor("steps"), file.get_tensor("held_out"))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and it is computed again.") from error
    if text != key.text:
        raise ValueError(f"{path} holds the errors of another reference or of other draws: remove it.")
    if not (torch.isfinite(errors.steps).all() and torch.isfinite(errors.held_out).all()):
        raise ValueError(f"{path} is damaged (a number is not finite): remove it, and it is computed again.")
    if len(errors.steps) < num_steps:
        return None
    return ReferenceErrors(errors.steps[:num_steps].contiguous(), errors.held_out)


def write_errors(path: Path, key: ReferenceKey, errors: ReferenceErrors) -> None:
    """Writes a file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {"steps": errors.steps.contiguous(), "held_out": errors.held_out.contiguous()}
    save_file(tensors, temporary, metadata={"key": key.text})
    temporary.replace(path)
