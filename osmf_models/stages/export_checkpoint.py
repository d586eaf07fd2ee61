"""Writes the model of a training checkpoint as the stage itself would have handed it over, had it ended there.

    python -m osmf_models.stages.export_checkpoint --checkpoint OUTPUT/checkpoints/step-0000300 --output DIR
        [--average | --no-average]

DIR becomes a `GroupAdPipeline` in safetensors, fp32. One process on a CPU does it, whatever ZeRO stage and number of
processes wrote the checkpoint; a folder of checkpoints stands for the newest whole one. Every file is verified against
the checkpoint's manifest before it is read. `training/hand_over.py` does the work.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from osmf_models.stages.run_record import run_stage
from osmf_models.training.hand_over import export_checkpoint

logger = logging.getLogger(__name__)


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="a checkpoint, or a folder of them")
    parser.add_argument("--output", required=True, type=Path, help="folder to write; new or empty")
    parser.add_argument(
        "--average",
        action=argparse.BooleanOptionalAction,
        help="the running average of the weights, or the weights themselves; the average where there is one",
    )
    options = parser.parse_args()
    tag = export_checkpoint(options.checkpoint, options.output, options.average)
    logger.info("%s holds the model of %s", options.output, tag)


if __name__ == "__main__":
    run_stage(main)
