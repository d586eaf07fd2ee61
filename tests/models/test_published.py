"""Published classes as parts of the model, loaded from small checkpoints in the published formats."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import (
    qwen_tokenizer,
    write_backbone,
    write_deep_compression,
    write_kl,
    write_sana,
    write_sd3,
)
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from osmf_models.config import DpoConfig, ModelConfig, PublishedConfig, RunConfig
from osmf_models.data.choice import PretrainingBatch
from osmf_models.data.collate import BatchKey, Dropout, draw_generation_batch, draw_pair_batch
from osmf_models.data.examples import examples_of_split
from osmf_models.data.pairs import pairs_of_split
from osmf_models.model.backbone import TokenBatch, read_product_and_group
from osmf_models.model.gmllm import noisy_pictures
from osmf_models.model.lora import check_additions, choose_trained, merged, train_additions_alone
from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.model.published import build_published
from osmf_models.model.published_denoiser import TRANSFORMERS, PublishedDenoiser
from osmf_models.overrides import apply_overrides
from osmf_models.recipes import load_recipe
from osmf_models.stages.pretrain import batch_loss, build_model
from osmf_models.training import preference_step

DECODERS = {"sana": ("sana", "dc"), "sd3": ("sd3", "kl")}


@pytest.fixture(scope="module")
def folders(export, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    texts = [*export.products.title, *export.groups.description]
    return {
        "qwen": write_backbone(root / "qwen", texts),
        "sana": write_sana(root / "sana"),
        "dc": write_deep_compression(root / "dc"),
        "sd3": write_sd3(root / "sd3"),
        "kl": write_kl(root / "kl"),
    }


def config_of(folders: dict[str, Path], decoder: str = "sana", **changes: object) -> ModelConfig:
    denoiser, autoencoder = DECODERS[decoder]
    paths = (folders["qwen"], folders[denoiser], folders[autoencoder])
    published = replace(PublishedConfig(*map(str, paths), lora_rank=4, lora_alpha=8), **changes)
    return replace(load_recipe("tiny").model, published=published)


def batch_of(export, size: int = 4):
    examples = examples_of_split(export, 6.0, "train")
    key = BatchKey(0, 0, range(size))
    return PretrainingBatch(draw_generation_batch(export, examples, key, Dropout(), lambda u: 0.1 + 0.9 * u))


@pytest.fixture(params=DECODERS)
def built(request, folders, export):
    torch.manual_seed(0)
    config = config_of(folders, request.param)
    run = RunConfig("test", config, pretraining=load_recipe("tiny").pretraining)
    return build_published(config, export.manifest), run


def test_loss_falls_and_only_what_is_chosen_changes(built, export):
    model, run = built
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer, batch, losses = torch.optim.AdamW(trained, lr=1e-2), batch_of(export), []
    for _ in range(6):
        loss, _ = batch_loss(model, model, batch, run)
        loss.backward()
        assert all(one.grad is not None for one in trained)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    fresh = ("group_encoder.", "connector.", "planner.", "denoiser.condition.", "denoiser.pooled.")
    others = {name for name in changed if not name.startswith(fresh) and ".lora_" not in name}
    embedding = "pos_embed" if "pooled_projection_dim" in model.denoiser.transformer.config else "patch_embed"
    assert others <= {f"denoiser.transformer.{embedding}.proj.{kind}" for kind in ("weight", "bias")}
    assert {name.split(".")[0] for name in changed if ".lora_" in name} == {"backbone", "denoiser"}
    assert not any(".visual." in name for name in changed)


def test_saved_model_draws_what_the_trained_one_draws_and_training_is_left_alone(built, export, tmp_path):
    model, run = built
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(value, std=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with merged(model):
        GroupAdPipeline.of(model).save_pretrained(tmp_path, safe_serialization=True)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    pipeline = GroupAdPipeline.from_pretrained(tmp_path, local_files_only=True)
    saved = pipeline.gmllm.state_dict()
    assert not any("lora" in name or "base_layer" in name for name in saved)
    assert not list(tmp_path.rglob("*.bin"))
    batch = batch_of(export)
    with torch.no_grad():
        loss, again = (batch_loss(one, one, batch, run)[0] for one in (model.eval(), pipeline.gmllm.eval()))
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    cutouts = np.stack([export.cutouts[index] for index in range(2)])
    titles, features = list(export.products.title[:2]), export.raw_group_features[:2]
    drawn = pipeline(cutouts[..., :3], cutouts[..., 3], titles, features, num_inference_steps=2, generator=0)
    inside = cutouts[..., 3] == 1.0
    assert inside.any()
    assert np.abs(drawn - cutouts[..., :3])[inside].max() == 0.0
    assert drawn.std() > 0.0


def test_low_rank_addition_is_alpha_over_r_times_b_a(folders, export):
    model = build_published(config_of(folders), export.manifest)
    layer = model.backbone.model.language_model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    expected = layer.base_layer.weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    with merged(model):
        torch.testing.assert_close(model.backbone.model.language_model.layers[0].self_attn.q_proj.weight, expected)


@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_fresh_denoiser_predicts_what_the_published_one_predicts(folders, export, decoder):
    """clean = x_t - t v with v of the published transformer alone at time 1000 t, whatever product it is shown."""
    model = build_published(config_of(folders, decoder), export.manifest).eval()
    denoiser = model.denoiser
    name = denoiser.config["transformer_class"]
    published = TRANSFORMERS[name].from_pretrained(folders[DECODERS[decoder][0]], local_files_only=True).eval()
    noisy, clean = noisy_pictures(model, batch_of(export, 2).generation.pictures)
    tokens = torch.randn(2, 5, 32)
    pooled = {} if decoder == "sana" else {"pooled_projections": denoiser.pooled(tokens.mean(1))}
    velocity = published(
        hidden_states=noisy.latents,
        encoder_hidden_states=denoiser.condition(tokens),
        timestep=1000 * noisy.time,
        **pooled,
    ).sample
    expected = noisy.latents - noisy.time[:, None, None, None] * velocity
    predicted = denoiser(noisy.latents, noisy.product, noisy.masks, noisy.time, tokens)
    scene, product = noisy.masks.expand_as(clean) == 0.0, noisy.masks.expand_as(clean) == 1.0
    torch.testing.assert_close(predicted[scene], expected[scene])
    torch.testing.assert_close(predicted[product], noisy.product[product])
    torch.nn.init.normal_(denoiser.transformer.get_submodule(_embedding(decoder)).proj.weight[:, -1:])
    assert (denoiser(noisy.latents, noisy.product, noisy.masks, noisy.time, tokens) - predicted).abs().max() > 1e-3


def _embedding(decoder: str) -> str:
    return "patch_embed" if decoder == "sana" else "pos_embed"


@torch.no_grad()
def test_latents_are_scaled_and_shifted_as_the_autoencoder_says(folders, export):
    model = build_published(config_of(folders, "sd3"), export.manifest)
    pictures = batch_of(export, 2).generation.pictures.images
    mean = model.autoencoder.encode(2.0 * pictures - 1.0).latent_dist.mean
    encoded = model.latents.encode(pictures)
    assert encoded.shape == (2, 4, 16, 16)
    torch.testing.assert_close(encoded, (mean - 0.0609) * 1.5305)
    decoded = (model.autoencoder.decode(mean).sample + 1.0) / 2.0
    torch.testing.assert_close(model.latents.decode(encoded), decoded.clamp(0.0, 1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_product_that_the_denoiser_sees_tells_nothing_of_the_scene(folders, export, decoder):
    latents = build_published(config_of(folders, decoder), export.manifest).latents
    pictures = batch_of(export, 2).generation.pictures
    masks = pictures.masks.round()
    other = masks * pictures.images + (1.0 - masks) * torch.rand_like(pictures.images)
    torch.testing.assert_close(latents.product(other, masks), latents.product(pictures.images, masks))
    assert (latents.encode(other) - latents.encode(pictures.images)).abs().max() > 1e-3


def test_noise_of_latents_is_the_pictures_own(folders, export):
    latents = build_published(config_of(folders), export.manifest).latents
    noise = torch.randn(2, 3, 32, 32)
    assert latents.noise(noise).shape == (2, 8, 8, 8)
    torch.testing.assert_close(latents.noise(noise).flatten(1), noise.flatten(1)[:, :512])


@torch.no_grad()
def test_qwen_reads_what_its_own_processor_and_positions_would_give_it(folders):
    """One title is padded; group tokens and queries are embeddings of words, so that the library can read them too."""
    backbone = Qwen3VLForConditionalGeneration.from_pretrained(folders["qwen"], local_files_only=True).eval()
    config, generator = backbone.config, torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), generator=generator)
    title, group, queries, text = torch.randint(0, 256, (2, 14), generator=generator).split([5, 3, 2, 4], dim=1)
    is_title = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    whole = torch.ones_like(text, dtype=torch.bool)
    embed = backbone.get_input_embeddings()
    own = read_product_and_group(
        backbone,
        pictures / 127.5 - 1.0,
        TokenBatch(title, is_title),
        embed(group),
        embed(queries),
        TokenBatch(text, whole),
    )
    processor = Qwen2VLImageProcessorPil.from_pretrained(folders["qwen"], do_resize=False)
    seen = processor(images=[one.permute(1, 2, 0).numpy().astype(np.uint8) for one in pictures], return_tensors="pt")
    start, pad, end = config.vision_start_token_id, config.image_token_id, config.vision_end_token_id
    picture = torch.tensor([[start, *[pad] * 16, end]] * 2)
    ids = torch.cat([picture, title, group, queries, text], dim=1)
    is_token = torch.ones_like(ids)
    is_token[:, 18:23] = is_title
    expected = backbone(
        input_ids=ids, attention_mask=is_token, mm_token_type_ids=(ids == pad).int(), output_hidden_states=True, **seen
    )
    torch.testing.assert_close(own.hidden_states, expected.hidden_states[-1][:, 23:28], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.description_logits, expected.logits[:, 27:31], atol=1e-5, rtol=1e-4)


def test_what_is_trained_is_what_the_recipe_says(folders, export):
    def trained(**changes: str) -> dict[str, int]:
        return build_published(config_of(folders, **changes), export.manifest).num_trainable_parameters()

    low_rank = trained()
    frozen = trained(backbone_training="frozen", denoiser_training="frozen")
    whole = trained(backbone_training="whole", denoiser_training="whole")
    # r (in + out) of q, k, v, o, gate, up and down, in 2 layers.
    assert low_rank["backbone"] == 2 * 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)
    joined = 32 * 24 + 24 + 17 * 16 + 16  # projection of the condition; first convolution, of 8 + 8 + 1 channels
    assert frozen["denoiser"] == joined
    assert low_rank["denoiser"] == joined + 2 * 4 * 2 * 4 * (16 + 16)  # q, k, v, o of two attentions, in 2 layers
    assert (frozen["backbone"], low_rank["autoencoder"], whole["autoencoder"]) == (0, 0, 0)
    assert whole["backbone"] == Qwen3VLForConditionalGeneration.from_pretrained(folders["qwen"]).num_parameters()
    assert whole["connector"] == frozen["connector"] > 0


def test_handed_over_model_is_the_reference_of_fresh_additions(built, export, tmp_path):
    """Group-DPO starts from it: new additions of zero change nothing, and the autoencoder stays frozen."""
    model, run = built
    with merged(model):
        GroupAdPipeline.of(model).save_pretrained(tmp_path, safe_serialization=True)
    policy = GroupAdPipeline.from_pretrained(tmp_path, local_files_only=True).gmllm.eval()
    batch = batch_of(export)
    with torch.no_grad():
        before = batch_loss(policy, policy, batch, run)[0]
        choose_trained(policy, run.model.published)
        assert float(batch_loss(policy, policy, batch, run)[0]) == pytest.approx(float(before), rel=1e-6)
    assert policy.num_trainable_parameters() == model.num_trainable_parameters()
    assert isinstance(policy.denoiser, PublishedDenoiser)


@pytest.mark.parametrize("error_space", ["look", "clean"])
def test_model_with_its_additions_off_stays_what_training_started_from(built, export, error_space):
    model, _ = built
    train_additions_alone(model)
    started, before = deepcopy(model).eval(), {name: one.clone() for name, one in model.named_parameters()}
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    dpo, key = DpoConfig(error_space=error_space), BatchKey(0, 0, range(4))
    pairs = pairs_of_split(export, dpo, "train")
    batch = draw_pair_batch(export, pairs, key, Dropout(), lambda uniform: 0.1 + 0.9 * uniform, True)
    reference = preference_step.reference_errors(started, batch, dpo)
    optimizer, losses = torch.optim.AdamW(trained.values(), lr=1e-2), []
    for _ in range(4):
        off = preference_step.errors_without_additions(model, batch, dpo)
        assert torch.equal(off, reference)
        loss, metrics = preference_step.batch_loss(model, batch, off, dpo)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert metrics["reward_margin"].abs() > 0.0
    assert {name for name, one in model.named_parameters() if one.requires_grad} == set(trained)
    changed = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert changed <= {name for name in trained if ".lora_" in name}
    assert any(name.startswith("denoiser.") for name in changed) == (error_space == "clean")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("tiny", ["dpo.reference=adapter_off"], "recipe 'tiny' has no LoRA to train alone"),
        ("tiny", ["dpo.is_adapters_only=true"], "recipe 'tiny' has no LoRA to train alone"),
        ("qwen3_vl_sana", ["dpo.is_adapters_only=false"], "set dpo.is_adapters_only=true, or dpo.reference=cached"),
        ("qwen3_vl_sana", ["model.published.denoiser_training=whole"], "are lora and whole: .* or set dpo.is_adapt"),
        ("qwen3_vl_sana", ["model.published.backbone_training=frozen"], "additions to the denoiser do not change: set"),
    ],
)
def test_reference_that_cannot_lie_beneath_additions_is_refused(recipe, overrides, message):
    with pytest.raises(ValueError, match=message):
        check_additions(apply_overrides(load_recipe(recipe), overrides))


def test_additions_to_the_denoiser_alone_serve_errors_of_pictures():
    overrides = ["model.published.backbone_training=frozen", "dpo.error_space=clean"]
    check_additions(apply_overrides(load_recipe("qwen3_vl_sana"), overrides))
    check_additions(load_recipe("tiny"))


@pytest.mark.parametrize("override", ["choice_batch_size=4", "warmth_weight=5"])
def test_what_only_pixels_can_learn_is_refused(folders, export, override):
    run = RunConfig("test", config_of(folders), pretraining=load_recipe("tiny").pretraining)
    run = apply_overrides(run, ["pretraining.choice_batch_size=0", f"pretraining.{override}"])
    with pytest.raises(ValueError, match=f"{override.split('=')[0]} must be"):
        build_model(run, export.manifest, ["text"])


def copied(folders: dict[str, Path], name: str, target: Path) -> dict[str, Path]:
    shutil.copytree(folders[name], target)
    return {**folders, name: target}


def test_wrong_folders_are_told_by_name_and_remedy(folders, export, tmp_path):
    def refusal(**changes: Path) -> str:
        with pytest.raises(ValueError, match=r".") as error:
            build_published(config_of({**folders, **changes}), export.manifest)
        return str(error.value)

    with pytest.raises(ValueError, match=r"denoiser_path is empty: name the folder .* --set model.published.denoiser"):
        build_published(config_of(folders, denoiser_path=""), export.manifest)
    missing = tmp_path / "nowhere"
    assert f"{missing} holds no config.json" in refusal(sana=missing)
    assert "holds a AutoencoderDC, SanaTransformer2DModel or SD3" in refusal(sana=folders["dc"])
    assert f"{folders['sana']} cannot be loaded as a Qwen3-VL" in refusal(qwen=folders["sana"])
    assert "works on 8 channels, the autoencoder gives 4" in refusal(dc=folders["kl"])
    broken = copied(folders, "sana", tmp_path / "broken")["sana"]
    (broken / "diffusion_pytorch_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert f"{broken} cannot be loaded as Sana" in refusal(sana=broken)
    pickled = copied(folders, "qwen", tmp_path / "pickled")["qwen"]
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert f"{pickled} cannot be loaded as a Qwen3-VL" in refusal(qwen=pickled)
    path = copied(folders, "qwen", tmp_path / "other_pixels")["qwen"] / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.48, 0.46, 0.41]}))
    assert "image_mean [0.48, 0.46, 0.41]" in refusal(qwen=path.parent)


def test_weights_that_are_not_there_are_refused(folders, export, tmp_path):
    changed = copied(folders, "sana", tmp_path / "part")
    path = changed["sana"] / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["proj_out.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"part (lacks 1 weights \(proj_out.weight|cannot be loaded as Sana)"):
        build_published(config_of(changed), export.manifest)


def test_pictures_that_no_part_can_divide_are_refused(folders, export):
    with pytest.raises(ValueError, match=r"36 px do not fit the backbone: export at a multiple of 8 px"):
        build_published(config_of(folders), replace(export.manifest, image_px=36))


def test_tokenizer_is_the_published_one_cut_at_a_title(folders, export):
    tokenizer = build_published(config_of(folders), export.manifest).tokenizer
    texts = [*export.products.title, *export.groups.description]
    assert tokenizer("shoe in colour 3").input_ids == qwen_tokenizer(texts)("shoe in colour 3").input_ids
    assert tokenizer.model_max_length == load_recipe("tiny").model.num_title_tokens


@torch.no_grad()
def test_fresh_tokens_are_no_larger_than_words(folders, export):
    model = build_published(config_of(folders), export.manifest)
    words = model.backbone.get_input_embeddings().weight.std()
    features = torch.randn(64, len(export.manifest.group_feature_names))
    group = model.group_encoder(features, torch.zeros(64, dtype=torch.bool))
    assert 0.5 * words < model.connector.queries.weight.std() < 2.0 * words
    assert 0.05 * words < group.std() < 2.0 * words
