"""The page: it says what its facts say, shows what is hostile as text, and a browser finds nothing to refuse."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from osmf_pipelines.report import page as page_module
from osmf_pipelines.report.facts import AblationFacts, MarketFacts, Missing, PairFacts, ReportFacts, VerdictFacts
from osmf_pipelines.report.inline_pictures import data_uri
from osmf_pipelines.report.page import render
from tests.report.browser import NAMES, Tab, browser, find_chromium
from tests.report.sample_facts import evaluation, png, sample

ANCHORS = ["market", "groups", "pairs", "training", "gallery", "lifts", "unseen-pairs", "ablations", "verdict"]
PACKAGE = Path(page_module.__file__).parent
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "</style></title><svg onload=document.title='owned'>; <a href=javascript:alert(1)>x</a>",
    "{{7*7}}{%for x in y%}${7*7}#{7*7}%s%(a)s{0}{self}",
    "../../../etc/passwd\x00.png",
    "\u202egnp.exe & \"quotes\" 'single' &amp; ]]> <!-- -->",
)


class Reading(HTMLParser):
    """What a parser makes of a page: elements, attributes, and the text outside of the style sheet."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    executable = find_chromium()
    if executable is None:
        pytest.skip(f"no Chromium on this machine, looked for {', '.join(NAMES)}")
    with browser(executable, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def write(folder: Path, facts: ReportFacts) -> Path:
    path = folder / "report.html"
    path.write_text(render(facts), encoding="utf-8")
    return path


def test_every_section_says_its_figures() -> None:
    page = render(sample())
    reading = Reading(page)
    assert [value for name, value in reading.attributes if name == "id"] == ANCHORS
    assert {value for name, value in reading.attributes if name == "href"} == {f"#{one}" for one in ANCHORS}
    for told in (
        "Logs of 2026-03-02 to 2026-03-04 (UTC): 8,000 exposures of 2 products in 1 category",
        "200 of them clicked (2.50%)",
        "read 1,007 50",
        "mostly young",
        "warmth +3.2",
        "texture −2.5",
        "40 pairs “this group prefers this picture to that one”",
        "4 pairs stand the other way round",
        "5.0% of the pairs are wrong; by the truth 6.0% are",
        "Group-DPO 5.00% 1.00% 50% 0.90",
        "Over global DPO, one size for all: 1 of 2 groups gain, 1 of them surely",
        "+1.00 (+0.50 to +1.50) ▲ surely above",
        "−2.00 (−3.00 to −1.00) ▼ below",
        "5.00% ▲ one size 4.00%",
        "4.00% on average",
        "+1.23 points over one size for all (−0.12 to +2.34)",
        "global DPO, one size for all – – – – Group-DPO 0.80 (0.70 to 0.85) 0.90 (0.80 to 0.95)",
        "0.45 (0.35 to 0.50) 0.062",
        "Group-DPO: how sure of its order",
        "No ablation has been run here.",
        "The gate has refused it",
        "Registered as version 3 of shoe ; held against version 2",
    ):
        assert told in reading.text, told
    assert page == render(sample())


def test_hostile_names_are_shown_as_text() -> None:
    allowed = set(Reading(render(sample())).tags)
    for text in HOSTILE:
        reading = Reading(render(sample(name=text, words=text, rule=text)))
        shown = " ".join(text.replace("\x00", "\ufffd").split())
        assert reading.text.count(shown.split("; ")[0]) >= 6, text
        assert set(reading.tags) <= allowed
        assert not [name for name, _ in reading.attributes if name.startswith("on") or name == "style"]
        addresses = [value or "" for name, value in reading.attributes if name in ("src", "href")]
        assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in addresses)


def test_a_hostile_arm_and_ablation_are_text() -> None:
    """Names that come from command lines and files, not from logs."""
    bad = "<b onclick=x>"
    judged = evaluation()
    metrics = {
        f"{bad}/{name.split('/')[1]}": value for name, value in judged.metrics.items() if name.startswith("oracle/")
    }
    arms = replace(judged, arms=[bad], metrics={**judged.metrics, **metrics})
    ablation = AblationFacts(bad, bad, bad, [bad, bad], [[bad, bad]])
    reading = Reading(render(replace(sample(), evaluation=arms, ablation=ablation)))
    assert reading.text.count(bad) == 8
    assert "onclick" not in {name for name, _ in reading.attributes}


def test_markup_is_made_in_one_place() -> None:
    """Text is taken for markup where it is escaped, and the page's own style sheet is put in."""
    makers = [path.name for path in sorted(PACKAGE.glob("*.py")) if re.search(r"(?<!class )\bHtml\(", path.read_text())]
    assert makers == ["markup.py", "page.py"]


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    page = render(sample())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    directives = dict(one.strip().split(" ", 1) for one in policy.replace("&#x27;", "'").split(";"))
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "url(" not in style
    assert "@import" not in style


def test_what_is_missing_is_said_in_its_place() -> None:
    sections = [one.name for one in fields(ReportFacts) if one.name != "as_of_date"]
    facts = ReportFacts("2026-03-04", **{name: Missing(f"no {name} <yet>") for name in sections})
    reading = Reading(render(facts))
    assert [value for name, value in reading.attributes if name == "id"] == ANCHORS
    assert all(f"no {name} <yet>" in reading.text for name in sections)
    assert facts.missing() == {name: f"no {name} <yet>" for name in sections}


def test_a_lake_whose_truth_is_not_known_says_so() -> None:
    """Predicted lifts in place of click rates: log 1.1 is told as +10%."""
    ends = {"": 0.0953102, "_low": 0.0, "_high": 0.1823216}
    shown = evaluation()
    assert not isinstance(shown.gallery, Missing)
    judged = replace(
        shown,
        is_truth_known=False,
        metrics={f"group_dpo/predicted_log_lift{end}": value for end, value in ends.items()},
        arms=["group_dpo"],
        predicted={("group_dpo", "g1", "p1"): 0.0953102},
        gallery=shown.gallery.assign(true_ctr_rate=float("nan")),
    )
    facts = sample()
    assert isinstance(facts.pairs, PairFacts)
    pairs = replace(facts.pairs, wrong_share=None, calibration=())
    told = Reading(render(replace(facts, evaluation=judged, pairs=pairs))).text
    assert "Whether probabilities hold can be seen only where the truth is known" in told
    assert "no truth is known here, so these are lifts over the logged pictures as the group reward model" in told
    assert "+10.0% (+0.0% to +20.0%)" in told
    assert "+10%" in told
    assert "nan" not in told.lower()


def test_models_without_an_implicit_reward_and_unread_ones_are_told() -> None:
    for rewards, told in (
        ({"pretrained": None}, "No model here was trained on preferences beside the model that it began with."),
        (Missing("What pairs say cannot be read."), "What pairs say cannot be read."),
    ):
        reading = Reading(render(replace(sample(), evaluation=replace(evaluation(), implicit_rewards=rewards))))
        assert told in reading.text
        assert "how sure of its order" not in reading.text


def test_a_champion_and_no_pairs_are_told() -> None:
    facts = replace(
        sample(), verdict=VerdictFacts("m", 1, "champion"), pairs=PairFacts(0.9, [], []), training=Missing("none")
    )
    told = Reading(render(facts)).text
    assert "It is the champion: what users see" in told
    assert "No comparison of two pictures is sure with a probability of 0.9: no pairs." in told


def test_outcomes_that_never_came_are_left_out_and_nothing_is_minus_zero() -> None:
    facts = sample()
    assert isinstance(facts.market, MarketFacts)
    assert not isinstance(facts.groups, Missing)
    events = {**facts.market.num_events, ("click", "orphan"): 0, ("click", "attributed"): 3}
    groups = [replace(facts.groups[0], tastes=[("warmth", -0.04)])]
    told = Reading(render(replace(facts, market=replace(facts.market, num_events=events), groups=groups))).text
    assert "of those kept: attributed 3" in told
    assert "orphan" not in told
    assert "warmth 0.0" in told


def test_a_picture_is_encoded_anew_and_small() -> None:
    uri = data_uri(png(side_px=600), "p1")
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    assert content[:2] == b"\xff\xd8"
    assert len(content) < 10_000


@pytest.mark.parametrize("content", [b"", b"GIF89a", png()[:40], b"<svg onload=alert(1)>"])
def test_a_picture_that_is_none_is_named(content: bytes) -> None:
    with pytest.raises(ValueError, match="picture of p1 is no readable PNG"):
        data_uri(content, "p1")


def test_a_picture_too_large_to_be_one_is_named() -> None:
    with pytest.raises(ValueError, match=r"picture of p1 is \(5000, 5000\) px"):
        data_uri(png(side_px=5000), "p1")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("is_dark", [False, True])
def test_a_browser_shows_the_page_whole(tab: Tab, tmp_path: Path, width: int, is_dark: bool) -> None:
    """Styled, every picture decoded, nothing wider than the window, text that contrasts with the paper."""
    tab.show(width, is_dark=is_dark)
    tab.open(write(tmp_path, sample()))
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value("[...document.images].every(image => image.naturalWidth > 0) && document.images.length") > 4
    ink, paper = tab.value("[getComputedStyle(document.documentElement)].map(s => [s.color, s.backgroundColor])[0]")
    lightness = [sum(map(int, re.findall(r"\d+", color)[:3])) / 765 for color in (ink, paper)]
    assert (lightness[0] > lightness[1]) == is_dark
    assert abs(lightness[0] - lightness[1]) > 0.7


def test_a_browser_finds_nothing_to_run_or_load(tab: Tab, tmp_path: Path) -> None:
    for text in HOSTILE:
        path = write(tmp_path, sample(name=text, words=text, rule=text))
        tab.entries.clear()
        tab.requests.clear()
        tab.open(path)
        assert tab.value("document.title") == "OSMF report as of 2026-03-04"
        assert tab.value("document.scripts.length") == 0
        assert [one for one in tab.requests if not one.startswith("data:image/jpeg")] == [path.as_uri()]
        assert tab.entries == []
