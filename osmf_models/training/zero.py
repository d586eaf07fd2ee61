"""DeepSpeed, and nothing else of the project imports it: ZeRO configs, engines, processes.

Sockets are bound to the loopback device unless a launcher has said otherwise. Checkpoints' safety belongs in
`checkpoint.py`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from osmf_models.config import TrainingConfig, ZeroConfig
from osmf_models.training.skipping import look_at_norm

Value = TypeVar("Value")


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Hides a module that an import would load for nothing (DeepSpeed's autotuner takes MLflow: seconds a process)."""
    hidden = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden is None:
            del sys.modules[name]
        else:
            sys.modules[name] = hidden


if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")

with without_module("mlflow"):
    import deepspeed


def deepspeed_config(
    zero: ZeroConfig, training: TrainingConfig, world_size: int, has_fused_optimizer: bool = False
) -> dict[str, Any]:
    """Returns the concrete DeepSpeed config: no `auto`, clipping always.

    One process has nothing to shard, so in fp32 its stages 1 and 2 become stage 0, whose steps are quicker. In bf16
    they stay: there they keep the fp32 master weights.

    Args:
        zero: stage and precision.
        training: batch size, optimiser and clipping.
        world_size: processes that share the batch.
        has_fused_optimizer: AdamW in one kernel, for parameters on a GPU.

    Raises:
        ValueError: when the batch cannot be shared equally by the processes.
    """
    if training.batch_size % world_size:
        raise ValueError(f"batch_size {training.batch_size} cannot be shared equally by {world_size} processes.")
    is_alone = world_size == 1
    stage = 0 if is_alone and zero.precision == "fp32" and zero.stage < 3 else zero.stage
    return {
        "train_batch_size": training.batch_size,
        "train_micro_batch_size_per_gpu": training.batch_size // world_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.gradient_clip,
        "steps_per_print": 1_000_000_000,
        # `skipping.py` looks at the gradient's norm, so that DeepSpeed need not look through each of them.
        "bf16": {"enabled": zero.precision == "bf16", "check_grad_overflow": False},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": training.learning_rate,
                "betas": [0.9, 0.99],
                "weight_decay": training.weight_decay,
                "torch_adam": True,
                **({"fused": True} if has_fused_optimizer else {}),
            },
        },
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "parameter_alignment": True,  # weights that begin at odd places get slow matrix products on a GPU
            "overlap_comm": False,
            "reduce_scatter": not is_alone,  # one process has nothing to scatter, and whole buckets take fewer steps
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": False,
        },
    }


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the launcher's processes, or makes a group of one, and leaves it cleanly."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    is_alone = "MASTER_ADDR" not in os.environ  # no launcher says where its processes meet
    if is_alone:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if is_alone:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def build_engine(model: nn.Module, zero: ZeroConfig, training: TrainingConfig) -> Any:
    """Returns the DeepSpeed engine around `model`; its `destroy()` must be called before the processes part."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    config = deepspeed_config(zero, training, dist.get_world_size(), has_fused_optimizer=torch.cuda.is_available())
    engine, *_ = deepspeed.initialize(model=model, model_parameters=parameters, config=config)
    look_at_norm(engine.optimizer)
    return engine


@contextmanager
def whole_parameters(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Makes `parameters` whole on every process, whatever the ZeRO stage; all must enter."""
    with deepspeed.zero.GatheredParameters(list(parameters)):
        yield


def gradient_norm(engine: Any) -> Tensor | None:
    """Returns the norm of the last step's gradient before clipping, a scalar, or None under ZeRO-0, which keeps none.

    It is negative or infinite where the gradient is no finite number.
    """
    norm = engine.get_global_grad_norm()
    return None if norm is None else torch.as_tensor(norm, device=engine.device, dtype=torch.float32)


def has_finite_weights(model: nn.Module) -> bool:
    """Returns whether every trained weight is a finite number on every process; all must call it."""
    held = [_held_share(one).detach() for one in model.parameters() if one.requires_grad]
    is_finite = torch.stack([torch.isfinite(part).all() for part in held]).all()
    return bool(mean_over_ranks(is_finite.float()) == 1.0)


def _held_share(parameter: nn.Parameter) -> Tensor:
    """Returns what this process holds of a parameter: under ZeRO-3 its share alone, without what fills that up."""
    share = getattr(parameter, "ds_tensor", None)
    if share is None:
        return parameter
    past = parameter.ds_numel - dist.get_rank() * share.numel()  # type: ignore[attr-defined]
    return share.flatten()[: max(0, min(share.numel(), past))]


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Sets the rate of every parameter group."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def save_sharded(engine: Any, folder: Path, tag: str, client_state: dict[str, Any]) -> None:
    """Writes the engine's state to `folder/tag`, without DeepSpeed's own pointer; all processes must call it."""
    engine.save_checkpoint(str(folder), tag=tag, client_state=client_state, save_latest=False)


def load_sharded(engine: Any, folder: Path, tag: str) -> dict[str, Any]:
    """Reads the engine's state from `folder/tag` and returns the client state. It unpickles: verify first."""
    path, client_state = engine.load_checkpoint(str(folder), tag=tag)
    if path is None:
        raise ValueError(f"DeepSpeed could not load checkpoint {folder / tag}.")
    return client_state


def convert_to_universal(checkpoint: Path, target: Path) -> None:
    """Writes what a ZeRO-1, 2 or 3 checkpoint holds by the names of parameters, for any number of processes.

    One process calls it. It unpickles: verify first.

    Args:
        checkpoint: its folder.
        target: to write, somewhere below the folder that the checkpoint lies in.
    """
    from deepspeed.checkpoint import ds_to_universal

    arguments = argparse.Namespace(
        input_folder=checkpoint.name,
        output_folder=str(target.relative_to(checkpoint.parent)),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # It takes paths for patterns: from where the checkpoint lies they have no odd characters.
    with chdir(checkpoint.parent), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(arguments)


def read_sharded(checkpoint: Path) -> dict[str, Tensor]:
    """Returns the whole weights, by name, of a ZeRO-1, 2 or 3 checkpoint, trained ones in fp32; verify it first."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), checkpoint.name))


def load_universal(engine: Any, folder: Path, tag: str) -> dict[str, Any]:
    """Reads what `convert_to_universal` wrote to `folder/tag` and returns the client state; all must call it."""
    engine._config.load_universal_checkpoint = True
    try:
        return load_sharded(engine, folder, tag)
    finally:
        engine._config.load_universal_checkpoint = False


def stage(engine: Any) -> int:
    """The ZeRO stage that `engine` really runs."""
    return int(engine.zero_optimization_stage())


def from_first_rank(make: Callable[[], Value]) -> Value:
    """Returns on all processes what `make` returns on the first.

    Raises:
        ValueError: on all processes, when `make` raises it on the first.
    """
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except ValueError as error:
            made[1] = str(error)
    dist.broadcast_object_list(made, src=0, device=device())
    if made[1] is not None:
        raise ValueError(made[1])
    return made[0]


def rank() -> int:
    """This process's number among all."""
    return dist.get_rank()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size()


def device() -> torch.device:
    """Where this process trains."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    """Waits for all processes."""
    dist.barrier()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Returns the mean of `values` over all processes."""
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()


def filled_by_ranks(values: Tensor) -> Tensor:
    """Fills fp32 `values`, each set by one process at most and 0 elsewhere, in place; all bring the same shape."""
    dist.all_reduce(values.view(torch.int32))  # the sum of floats would make 0.0 of -0.0
    return values


def from_first(values: Tensor) -> Tensor:
    """Returns the first process's `values` on every process, on the CPU; all must bring the same shape and type."""
    shared = values.to(device(), copy=True).contiguous()
    dist.broadcast(shared, 0)
    return shared.cpu()


def is_true_on_first(value: bool) -> bool:
    """Returns the first process's `value` on every process."""
    return bool(from_first(torch.tensor(float(value))))


def all_ranks(values: Tensor) -> Tensor:
    """Returns the rows of all processes, in order of rank; each must bring as many rows."""
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
