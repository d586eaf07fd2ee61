"""Aliases in a real registry: who gets them, who does not and why, and the way back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from registered_versions import OTHER_SET, PAIRS, lines_of, record_of, trail_agrees

from osmf_pipelines.promotion.promote import Decision, PromotionRefusedError, Promotions, trail_path
from osmf_pipelines.promotion.registry import RegistryError
from osmf_pipelines.settings import Settings

CHAMPION = record_of(0.04)
BETTER, WORSE = record_of(0.05), record_of(0.03)


def test_the_first_model_becomes_champion_and_the_next_challenger(registry, promotions, champion):
    assert registry.aliases() == {"champion": 1}
    second = registry.add("second", BETTER, first=CHAMPION)
    outcome = promotions.register(second, by="asset")
    assert (outcome.alias, outcome.reasons) == ("challenger", ())
    assert registry.aliases() == {"champion": 1, "challenger": 2}
    tags = registry.tags(2)
    assert (tags["gate_verdict"], tags["gate_reasons"], tags["gate_champion"]) == ("passed", "", "1")
    assert promotions.promote(by="ada").alias == "champion"
    assert registry.aliases() == {"champion": 2}
    intended, done = lines_of(trail_path(registry.settings))[-2:]
    assert (intended["state"], done["state"]) == ("intended", "done")
    for line in (intended, done):
        assert (line["action"], line["by"], line["version"]) == ("promote", "ada", 2)
        assert (line["before"]["champion"], line["after"]["champion"]) == (1, 2)
        assert line["grounds"]["artifact_sha256"] == tags["artifact_sha256"]
        assert line["grounds"]["figures"]["true_ctr_rate_minus_champion/overall"] == pytest.approx(0.01)
    trail_agrees(registry)


def test_on_another_day_the_champion_counts_as_judged_beside_the_challenger(registry, promotions):
    """Its own evaluation judged pairs too, of days that are gone, and counts no more."""
    promotions.register(registry.add("first", replace(CHAMPION, pairs=PAIRS)), by="test")
    worse, better = (record_of(rate, evaluation_set=OTHER_SET, pairs=PAIRS) for rate in (0.04, 0.06))
    today = record_of(0.05, evaluation_set=OTHER_SET)
    refused = promotions.register(registry.add("second", worse, first=today), by="asset")
    assert "below the champion overall" in refused.reasons[0]
    outcome = promotions.register(registry.add("third", better, first=today), by="asset")
    assert (outcome.alias, outcome.reasons) == ("challenger", ())
    assert outcome.figures["true_ctr_rate_minus_champion/overall"] == pytest.approx(0.01)


def test_the_first_model_below_the_floor_gets_no_alias(registry, promotions):
    number = registry.add("ugly", record_of(0.9, quality=0.5))
    outcome = promotions.register(number, by="test")
    assert outcome.alias == ""
    assert registry.aliases() == {}
    assert "picture_quality 0.500 is below the floor 0.8" in registry.tags(number)["gate_reasons"]
    trail_agrees(registry)


REFUSED = {
    "worse": (WORSE, "below the champion overall"),
    "not a number": (
        replace(BETTER, cases=(replace(BETTER.cases[0], true_ctr_rate=math.nan), *BETTER.cases[1:])),
        "no finite number in 1 of 6",
    ),
    "other data": (record_of(0.05, evaluation_set=OTHER_SET), "on other data"),
    "not evaluated": (None, "without an evaluation"),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_is_refused_and_why(registry, promotions, champion, harm):
    record, reason = REFUSED[harm]
    beside = {} if harm in ("other data", "not evaluated") else {"first": CHAMPION}
    number = registry.add("second", record, **beside)
    before = registry.aliases()
    for ask in (lambda: promotions.register(number, by="asset"), None):
        if ask is not None:
            assert ask().alias == ""
            continue
        with pytest.raises(PromotionRefusedError, match=f"version 2 is refused: .*{reason}"):
            promotions.promote(number, by="ada", decision=Decision("I want it", "ada"))
    assert registry.aliases() == before == {"champion": champion}
    tags = registry.tags(number)
    assert tags["gate_verdict"] == "refused"
    assert reason in tags["gate_reasons"]
    line = lines_of(trail_path(registry.settings))[-1]
    assert (line["state"], line["by"], line["version"]) == ("refused", "ada", 2)
    assert any(reason in one for one in line["reasons"])
    trail_agrees(registry)


def test_what_loading_leaves_beside_the_files_is_no_change(registry, promotions, champion):
    number = registry.add("second", BETTER, first=CHAMPION)
    cache = registry.folders[number] / "code" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "more.cpython-311.pyc").write_text("compiled")
    assert promotions.promote(number, by="ada").alias == "champion"


@pytest.mark.parametrize("where", ["weights", "code", "records"])
def test_a_changed_artifact_is_refused(registry, promotions, champion, where):
    number = registry.add("second", BETTER, first=CHAMPION)
    folder = registry.folders[number]
    if where == "weights":
        registry.weights(number).write_text("other")
    elif where == "code":
        (folder / "code").mkdir()
        (folder / "code" / "more.py").write_text("print()")
    else:
        path = folder / "artifacts" / "evaluation_records.json"
        path.write_text(path.read_text().replace("0.05", "0.95"))
    with pytest.raises(PromotionRefusedError, match="files have changed since it was registered"):
        promotions.promote(number, by="ada")
    assert registry.aliases() == {"champion": champion}


def test_without_a_truth_passing_makes_a_challenger_and_a_decision_a_champion(registry, promotions):
    record = record_of(None, lift=0.3, pairs=PAIRS)
    number = registry.add("real", record)
    assert promotions.register(number, by="asset").alias == "challenger"
    assert promotions.promote(by="ada").alias == "challenger"
    outcome = promotions.promote(by="ada", decision=Decision("read-out of 1 to 14 June", "ada"))
    assert outcome.alias == "champion"
    assert registry.aliases() == {"champion": number}
    assert lines_of(trail_path(registry.settings))[-1]["grounds"]["decision"] == {
        "text": "read-out of 1 to 14 June",
        "by": "ada",
    }
    trail_agrees(registry)


def test_a_champion_whose_evaluation_nobody_has_is_told(registry, promotions, champion):
    registry.client.set_model_version_tag("shop", "1", "artifact_sha256", "e" * 64)
    number = registry.add("second", BETTER)
    with pytest.raises(PromotionRefusedError, match="version 1, the champion, was not evaluated: evaluate again"):
        promotions.promote(number, by="ada")


def test_rollback_goes_back_and_back_again(registry, promotions, champion):
    second = registry.add("second", BETTER, first=CHAMPION)
    third = registry.add("third", record_of(0.06), first=CHAMPION, second=BETTER)
    promotions.promote(second, by="ada")
    promotions.promote(third, by="ada")
    assert promotions.rollback(by="bob").version == second
    assert registry.aliases() == {"champion": second}
    assert promotions.rollback(by="bob").version == champion
    with pytest.raises(ValueError, match="no champion before this one"):
        promotions.rollback(by="bob")
    assert registry.aliases() == {"champion": champion}
    promotions.promote(third, by="ada")
    assert promotions.rollback(by="bob").version == champion
    trail_agrees(registry)


def test_rollback_to_changed_files_is_refused(registry, promotions, champion):
    second = registry.add("second", BETTER, first=CHAMPION)
    promotions.promote(second, by="ada")
    registry.weights(champion).write_text("other")
    with pytest.raises(PromotionRefusedError, match="version 1 cannot come back: its files have changed"):
        promotions.rollback(by="bob")
    assert registry.aliases() == {"champion": second}
    assert lines_of(trail_path(registry.settings))[-1]["state"] == "refused"


def test_an_alias_that_others_moved_is_told_and_can_be_rolled_back(registry, promotions, champion):
    second = registry.add("second", BETTER, first=CHAMPION)
    registry.client.set_registered_model_alias("shop", "champion", str(second))
    assert promotions.rollback(by="bob").version == champion
    states = [(line["action"], line["state"]) for line in lines_of(trail_path(registry.settings))]
    assert ("outside", "found") in states
    trail_agrees(registry)


def test_a_champion_that_changed_since_it_was_judged_against_is_told(registry, home, promotions, champion):
    second = registry.add("second", BETTER, first=CHAMPION)
    third = registry.add("third", BETTER, first=CHAMPION)

    def overtake(reached: str) -> None:
        if reached == "judged":
            promotions.promote(second, by="ada")

    with pytest.raises(PromotionRefusedError, match="version 2 by now, and it was held against 1"):
        Promotions(home, overtake).promote(third, by="bob")
    assert registry.aliases() == {"champion": second}


def test_errors_name_the_remedy(registry, home, promotions, champion):
    with pytest.raises(ValueError, match="there is no challenger: name a version"):
        promotions.promote(by="ada")
    with pytest.raises(ValueError, match="version 1 is the champion already"):
        promotions.promote(1, by="ada")
    with pytest.raises(RegistryError, match="shop has no version 9: it has 1"):
        promotions.promote(9, by="ada")
    with pytest.raises(RegistryError, match=r"no model other: .*OSMF_MODEL_NAME"):
        Promotions(home.model_copy(update={"model_name": "other"})).promote(by="ada")
    (home.home / "packages").rename(home.home / "moved")
    with pytest.raises(RegistryError, match="files of shop version 1 cannot be fetched"):
        promotions.register(1, by="ada")
    assert registry.aliases() == {"champion": 1}


def test_a_registry_that_cannot_be_reached_is_told(home, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(RegistryError, match=r"no registry at .*mlflow.db yet: materialise registered_model"):
        Promotions(Settings(home=tmp_path / "nothing")).promote(by="ada")
    assert not (tmp_path / "nothing" / "mlflow.db").exists()
    nowhere = home.model_copy(update={"mlflow_uri": "http://ada:secret@127.0.0.1:9"})
    with pytest.raises(RegistryError, match=r"\(http://127.0.0.1:9\) cannot be reached .*OSMF_MLFLOW_URI") as told:
        Promotions(nowhere).promote(by="ada")
    assert "secret" not in str(told.value)
    assert not trail_path(nowhere).exists()
