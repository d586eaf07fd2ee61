"""Compiling and checkpointing change how a model runs, not what it computes or saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from osmf_models.config import ExecutionConfig, ZeroConfig
from osmf_models.data.synthetic import synthetic_batch
from osmf_models.model.execution import compiled_parts, prepare_layers
from osmf_models.recipes import load_recipe
from osmf_models.stages.pretrain import batch_loss


def loss_and_gradient(gmllm, export):
    batch = synthetic_batch(export.manifest, size=2, seed=0, num_choices=2)
    loss, _ = batch_loss(gmllm, gmllm, batch, load_recipe("tiny"))
    loss.backward()
    gradient = gmllm.denoiser.transformer.transformer_blocks[0].attn1.to_q.weight.grad.clone()
    gmllm.zero_grad()
    return loss.item(), gradient


@pytest.mark.parametrize("execution", [ExecutionConfig(is_compiled=True), ExecutionConfig(is_checkpointed=True)])
def test_same_loss_same_gradient_same_names(gmllm, export, execution):
    gmllm.train()
    loss, gradient = loss_and_gradient(gmllm, export)
    names = list(gmllm.state_dict())
    prepare_layers(gmllm, execution, ZeroConfig(), backend="aot_eager")
    again, gradient_again = loss_and_gradient(gmllm, export)
    assert again == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(gradient_again, gradient)
    assert list(gmllm.state_dict()) == names


def test_warmth_weighs_in_the_loss_of_drawing_alone(gmllm, export):
    batch, recipe = synthetic_batch(export.manifest, size=2, seed=0), load_recipe("tiny")

    def losses(weight):
        config = replace(recipe, pretraining=replace(recipe.pretraining, warmth_weight=weight))
        with torch.no_grad():
            return batch_loss(gmllm, gmllm, batch, config)

    (plain, told), (twice, told_twice), (thrice, _) = losses(1.0), losses(2.0), losses(3.0)
    assert float(plain) < float(twice)
    assert float(thrice - twice) == pytest.approx(float(twice - plain), rel=1e-3)
    assert float(told_twice["generation_loss"] - told["generation_loss"]) == pytest.approx(
        float(twice - plain), rel=1e-3
    )
    assert told_twice["clean_error_low_noise"] == told["clean_error_low_noise"]


def test_every_layer_of_vision_language_connector_and_denoiser_is_compiled(gmllm):
    kinds = {type(layer).__name__ for layer in compiled_parts(gmllm)}
    assert kinds == {
        "SiglipEncoderLayer",
        "Qwen2DecoderLayer",
        "TransformerEncoderLayer",
        "BasicTransformerBlock",
    }


def test_compiling_under_zero_3_is_refused(gmllm):
    with pytest.raises(ValueError, match="ZeRO-3 gathers parameters inside layers"):
        prepare_layers(gmllm, ExecutionConfig(is_compiled=True), ZeroConfig(stage=3))
