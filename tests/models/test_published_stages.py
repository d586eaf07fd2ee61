"""The recipe of published parts as it is run: folders named on the command line, pretraining, Group-DPO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_checkpoints import write_backbone, write_deep_compression, write_sana
from test_group_dpo import metrics_of, record_of, run_cases
from test_stages import run, succeed

from osmf_models.model.pipeline import GroupAdPipeline
from osmf_models.training.hand_over import export_checkpoint

pytestmark = pytest.mark.slow

SMALL = {
    "model.num_heads": 2,
    "model.num_queries": 4,
    "model.num_group_tokens": 2,
    "model.connector_layers": 1,
    "model.published.lora_rank": 4,
    "pretraining.training.num_steps": 4,
    "pretraining.training.batch_size": 8,
    "pretraining.training.warmup_steps": 1,
    "pretraining.training.log_every": 1,
    "pretraining.training.checkpoint_every": 2,
    "pretraining.training.learning_rate": 1e-2,
    "pretraining.num_sampling_steps": 2,
    "pretraining.num_grid_groups": 2,
    "dpo.training.num_steps": 3,
    "dpo.training.batch_size": 4,
    "dpo.training.warmup_steps": 1,
    "dpo.training.log_every": 1,
    "dpo.training.learning_rate": 1e-3,
    "dpo.training.checkpoint_every": 0,
    "dpo.num_evaluation_pairs": 4,
    "dpo.num_evaluation_draws": 2,
    "zero.precision": "fp32",
}


def flags(**changes: object) -> list[str]:
    values = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.fixture(scope="module")
def folders(export, tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("published")
    texts = [*export.products.title, *export.groups.description]
    named = {
        "backbone_path": write_backbone(root / "qwen", texts),
        "denoiser_path": write_sana(root / "sana"),
        "autoencoder_path": write_deep_compression(root / "dc"),
    }
    return [part for name, folder in named.items() for part in ("--set", f"model.published.{name}={folder}")]


@pytest.fixture(scope="module")
def pretrained(export_folder, folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrained")
    arguments = ("--data", export_folder, *flags(), *folders)
    return output, succeed("pretrain", *arguments, output=output, recipe="qwen3_vl_sana")


def test_pretraining_learns_and_hands_over_a_whole_model(pretrained, export):
    output, record = pretrained
    assert losses(output)[-1] < losses(output)[0]
    names = {Path(name).relative_to("model").parts[0] for name in record["artifacts"]}
    assert {"autoencoder", "backbone", "denoiser", "connector", "group_encoder", "tokenizer"} <= names
    assert {Path(name).suffix for name in record["artifacts"]} <= {".json", ".safetensors", ".txt", ".jinja"}
    pipeline = GroupAdPipeline.from_pretrained(output / "model", local_files_only=True)
    cutout = export.cutouts[0][None]
    drawn = pipeline(
        cutout[..., :3], cutout[..., 3], ["shoe"], export.raw_group_features[:1], num_inference_steps=2, generator=0
    )
    inside = cutout[..., 3] == 1.0
    assert np.abs(drawn - cutout[..., :3])[inside].max() == 0.0


def test_resumed_training_goes_on_to_the_same_numbers(pretrained, export_folder, folders):
    output, record = pretrained
    before = losses(output)
    arguments = ("--data", export_folder, *flags(), *folders, "--resume")
    again = succeed("pretrain", *arguments, output=output, recipe="qwen3_vl_sana")
    assert losses(output) == pytest.approx(before, rel=1e-6)
    assert again["artifacts"] == record["artifacts"]


def check_exported(output: Path, folder: Path) -> None:
    """Half way all is there that is there in the end: what is frozen has the same weights, what is trained others."""
    export_checkpoint(output / "checkpoints" / "step-0000002", folder)
    names = [{path.relative_to(one) for path in one.rglob("*.*")} for one in (folder, output / "model")]
    assert names[0] == names[1]
    for name in names[0]:
        if name.suffix != ".safetensors" or name.parts[0] == "autoencoder":
            assert (folder / name).read_bytes() == (output / "model" / name).read_bytes(), name
    half, whole = (load_file(one / "backbone" / "model.safetensors") for one in (folder, output / "model"))
    equal = {key for key in whole if torch.equal(half[key], whole[key])}
    assert all(("_proj." in key and "language_model" in key) != (key in equal) for key in whole)


def test_checkpoint_is_exported_with_everything_in_it(pretrained, tmp_path):
    output, _ = pretrained
    check_exported(output, tmp_path / "out")


def test_group_dpo_trains_additions_to_what_pretraining_left(pretrained, export_folder, tmp_path):
    """No folder is named: the handed-over model is whole, and additions of zero make it its own reference."""
    output, _ = pretrained
    arguments = ("--data", export_folder, "--pretrained", output, *flags(zero__precision="bf16"))
    record = succeed("group_dpo", *arguments, output=tmp_path, recipe="qwen3_vl_sana")
    metrics = record["metrics"]
    assert metrics["validation/chosen_error_after"] != metrics["validation/chosen_error_before"]
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    chosen = pytest.approx(first["train/reference_chosen_error"], rel=0.01)  # bf16 rounds by 0.004
    assert first["train/chosen_error"] == chosen
    assert record["config"]["dpo"]["reference"] == "adapter_off"


@pytest.fixture(scope="module")
def lora_runs(pretrained, export_folder, tmp_path_factory):
    """Group-DPO with each reference, in one process."""
    output = tmp_path_factory.mktemp("lora")
    cases = ("off", "off_cached", "off_forward", "off_clean", "off_clean_forward")
    return output, run_cases(export_folder, pretrained[0], output, *cases)


@pytest.mark.parametrize(
    ("case", "other"), [("off", "off_cached"), ("off", "off_forward"), ("off_clean", "off_clean_forward")]
)
def test_additions_off_give_the_losses_of_other_references(lora_runs, case, other):
    output, _ = lora_runs
    off, others = metrics_of(output / case), metrics_of(output / other)
    assert len(off) == 4
    for one, same in zip(off, others, strict=True):
        assert one == pytest.approx(same, rel=1e-5, abs=1e-6)
    assert abs(off[-1]["train/reward_margin"]) > 1e-4  # a policy that had not moved would need no reference


def test_no_weights_are_in_memory_beside_the_policy_with_additions_off(lora_runs):
    _, seen = lora_runs
    copies = {one["case"]: one["num_copies"] for one in seen}
    assert copies["off"] == copies["off_clean"] == copies["off_cached"] == 1.0
    assert 1.5 < copies["off_forward"] < 2.0  # the copy has no additions


def test_only_layers_with_additions_are_handed_over_changed(lora_runs, pretrained):
    output, _ = lora_runs

    def is_left(case: str, part: str) -> bool:
        name = f"model/{part}/diffusion_pytorch_model.safetensors"
        return record_of(output / case)["artifacts"][name] == pretrained[1]["artifacts"][name]

    assert all(is_left("off_clean", part) for part in ("connector", "group_encoder", "planner"))
    assert not is_left("off_clean", "denoiser")
    before, after = (
        load_file(one / "model" / "backbone" / "model.safetensors") for one in (pretrained[0], output / "off")
    )
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all("_proj." in name and "language_model" in name for name in changed)


def test_additions_off_under_zero_reach_the_losses_of_one_rank_and_resume_exactly(
    lora_runs, pretrained, export_folder, tmp_path
):
    """A resumed run goes on from step 2 of 4: bit for bit the same weights."""
    cases = ("off_zero_1", "off_zero_1:resume", "off_zero_2", "off_zero_3", "off_zero_3:resume")
    seen = {one["case"]: one for one in run_cases(export_folder, pretrained[0], tmp_path, *cases, num_processes=2)}
    for case in ("off_zero_1", "off_zero_2", "off_zero_3"):
        assert losses(tmp_path / case) == pytest.approx(losses(lora_runs[0] / "off"), rel=1e-5)
        assert seen[case]["num_copies"] == 1.0
    for case in ("off_zero_1", "off_zero_3"):
        assert seen[f"{case}:resume"]["artifact_sha256"] == seen[case]["artifact_sha256"]


@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "fp32"), (3, "fp32")])
def test_two_ranks_under_zero(pretrained, export_folder, folders, tmp_path, stage, precision):
    output, _ = pretrained
    changed = flags(zero__stage=stage, zero__precision=precision)
    arguments = ("--data", export_folder, *changed, *folders)
    succeed("pretrain", *arguments, output=tmp_path, num_processes=2, recipe="qwen3_vl_sana")
    assert losses(tmp_path) == pytest.approx(losses(output), rel=1e-4 if precision == "fp32" else 0.05)
    check_exported(tmp_path, tmp_path / "exported")


def test_recipe_without_folders_says_how_to_name_them(export_folder, tmp_path):
    done = run("pretrain", "--data", export_folder, "--output", tmp_path, recipe="qwen3_vl_sana")
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: model.published.backbone_path is empty: name the folder")
