"""What `osmf promote` and `osmf rollback` print, and the champion as a model to judge."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from registered_versions import PAIRS, TinyRegistry, lines_of, record_of
from rich.console import Console

from osmf_models.records import ExportManifest
from osmf_pipelines.cli.promotion import run_promote, run_rollback
from osmf_pipelines.promotion.champion import champion_arm
from osmf_pipelines.promotion.promote import Decision, Promotions, trail_path
from osmf_pipelines.promotion.registry import Registry
from osmf_pipelines.settings import Settings


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_done_is_told_with_its_figures_and_who(registry, home, console):
    first = registry.add("first", record_of(0.04))
    Promotions(home).register(first, by="test")
    registry.add("second", record_of(0.05), first=record_of(0.04))
    run_promote(home, console, 2, "", "")
    text = printed(console)
    assert "shop version 2 is champion" in text
    assert "true_ctr_rate_minus_champion/overall" in text
    assert "0.01000" in text
    assert str(trail_path(home)) in text
    assert lines_of(trail_path(home))[-1]["by"]
    run_rollback(home, console)
    assert "shop version 1 is champion" in printed(console)


def test_without_a_truth_the_way_to_champion_is_told_and_markup_is_text(registry, home, console):
    registry.add("real", record_of(None, lift=0.2, pairs=PAIRS))
    run_promote(home, console, 1, "", "")
    assert 'osmf promote --version 1 --decision "WHY" --by NAME' in printed(console)
    assert registry.aliases() == {"challenger": 1}
    run_promote(home, console, None, "[red]<script>", "ada")
    assert registry.aliases() == {"champion": 1}
    last = lines_of(trail_path(home))[-1]
    assert (last["by"], last["grounds"]["decision"]) == ("ada", {"text": "[red]<script>", "by": "ada"})
    for decision, by in (("because", ""), ("", "ada"), ("because", " ")):
        with pytest.raises(ValueError, match="give both"):
            run_promote(home, console, 1, decision, by)


@pytest.mark.parametrize(("decision", "by"), [(" ", ""), ("", " "), ("\t", "\n")])
def test_a_blank_decision_makes_no_champion(registry, home, console, decision, by):
    registry.add("real", record_of(None, lift=0.2, pairs=PAIRS))
    run_promote(home, console, 1, decision, by)
    assert registry.aliases() == {"challenger": 1}
    assert lines_of(trail_path(home))[-1]["by"].strip()
    with pytest.raises(ValueError, match="lacks its reason or its author: give both"):
        Decision(decision, by)


@pytest.mark.parametrize(("text", "by"), [("because", " "), (" ", "ada")])
def test_half_a_decision_is_none(text, by):
    with pytest.raises(ValueError, match="give both"):
        Decision(text, by)


def write_manifest(folder: Path, names: tuple[str, ...], image_px: int) -> Path:
    folder.mkdir()
    ExportManifest("2026-03-07", image_px, names, (0.0,) * len(names), (1.0,) * len(names), {}, ()).write(folder)
    return folder


def test_the_champion_is_judged_where_it_can_draw(registry: TinyRegistry, home: Settings, tmp_path: Path) -> None:
    export = write_manifest(tmp_path / "export", ("a", "b"), 32)
    target = tmp_path / "arm"
    of_shop = Registry(home)
    assert champion_arm(Registry(Settings(home=tmp_path / "new")), export, (), target).told == "no champion yet"
    assert champion_arm(of_shop, export, (), target).folder is None
    number = registry.add("first", record_of(0.04))
    model = registry.folders[number] / "artifacts" / "model"
    for part, config in (("group_encoder", {"feature_names": ["a", "b"]}), ("denoiser", {"image_px": 32})):
        (model / part).mkdir()
        (model / part / "config.json").write_text(json.dumps(config))
    registry.client.set_registered_model_alias("shop", "champion", str(number))

    arm = champion_arm(of_shop, export, (), target)
    assert (arm.folder, arm.told) == (target, "version 1")
    sha256 = of_shop.package(of_shop.version(number)).artifact_sha256
    assert json.loads((target / "run.json").read_text())["artifact_sha256"] == sha256
    assert (target / "model" / "weights.safetensors").read_text() == "first"
    assert champion_arm(of_shop, export, (), target).folder == target
    assert champion_arm(of_shop, export, {sha256}, target).folder is None
    other = write_manifest(tmp_path / "other", ("a", "c"), 32)
    assert "knows other group features" in champion_arm(of_shop, other, (), target).told
    larger = write_manifest(tmp_path / "larger", ("a", "b"), 64)
    assert "draws 32 px, these pictures have 64" in champion_arm(of_shop, larger, (), target).told
