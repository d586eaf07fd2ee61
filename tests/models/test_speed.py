"""Counting operations and timing two ways side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from osmf_models.data.synthetic import synthetic_manifest, synthetic_texts
from osmf_models.model.gmllm import GMllm
from osmf_models.recipes import load_recipe
from osmf_models.training.flops import count_flops, peak_flops_per_second
from osmf_models.training.step_time import block_seconds, median_ratio


def test_operations_of_a_linear_layer():
    """2 B I O forward, as many for the gradient of the weights, and as many again for that of the input."""
    layer, inputs = nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    assert count_flops(lambda: layer(inputs)) == 2 * 3 * 5 * 7
    assert count_flops(lambda: layer(inputs).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_no_peak_is_claimed_for_a_cpu():
    assert peak_flops_per_second(torch.device("cpu"), "bf16") is None


def test_blocks_take_turns_and_steps_go_on():
    calls = []
    ways = {name: lambda first, count, name=name: calls.append((name, first, count)) for name in "ab"}
    seconds = block_seconds(ways, num_blocks=2, steps_per_block=3, num_warmup_steps=4)
    assert calls == [("a", 0, 4), ("b", 0, 4), ("a", 4, 3), ("b", 4, 3), ("b", 7, 3), ("a", 7, 3)]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_ratio_ignores_what_slows_both_down():
    assert median_ratio([1.1, 11.0, 1.1], [1.0, 10.0, 1.0]) == 1.1


@pytest.mark.torture
def test_deepspeed_costs_at_most_a_tenth_of_a_step(tmp_path):
    """One process against the plain loop, on a machine that does little else."""
    file = tmp_path / "measurement.json"
    command = [sys.executable, "-m", "osmf_models.stages.bench_train", "--recipe", "demo", "--steps", "30"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    subprocess.run([*command, "--output", str(file)], env=environment, capture_output=True, check=True, timeout=900)
    measured = json.loads(file.read_text())
    print(f"DeepSpeed : plain {measured['deepspeed_over_plain']:.3f}")
    assert measured["deepspeed_over_plain"] <= 1.10


def test_h200_has_the_parameters_that_its_docstring_tells():
    recipe = load_recipe("h200")
    with torch.device("meta"):
        texts = synthetic_texts(num_texts=1000, num_words=20, seed=0)
        model = GMllm.build(recipe.model, synthetic_manifest(recipe.data.image_px), texts)
    millions = sum(model.num_trainable_parameters().values()) / 1e6
    assert 605 < millions < 615
    assert round(model.num_trainable_parameters()["denoiser"] / 1e6) == 450
