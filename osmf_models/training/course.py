"""What the course of a training depends on beside its optimisation and its model's parameters; checkpoints keep it.

A checkpoint of another course is not gone on from: comparing belongs in `checkpoint.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from osmf_models.config import RunConfig

# What is shown, judged or asked of the machine; the optimisation is compared by itself, published parts by their
# parameters, wherever they lie.
_FREE = frozenset(
    {
        "pretraining.training",
        "pretraining.num_grid_rows",
        "pretraining.num_grid_groups",
        "pretraining.num_samplings",
        "pretraining.num_sampling_steps",
        "dpo.training",
        "dpo.reference",
        "dpo.num_evaluation_pairs",
        "dpo.num_evaluation_draws",
        "dpo.evaluate_every",
        "dpo.patience",
        "dpo.chosen_error_slack",
        "model.published",
        "data.max_image_px",
        "data.num_cached_pictures",
        "data.num_batches_ahead",
    }
)


def course_of(config: RunConfig, section: str, data_hash: str) -> dict[str, Any]:
    """Returns what a stage learns from and minimises, by name, as JSON would give it back.

    Args:
        config: of the run.
        section: its part for the stage, `pretraining` or `dpo`.
        data_hash: of the training export.
    """
    parts = {name: asdict(getattr(config, name)) for name in (section, "data", "model")}
    told = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    course: dict[str, Any] = json.loads(json.dumps({name: told[name] for name in told if name not in _FREE}))
    return {**course, "data_hash": data_hash}
