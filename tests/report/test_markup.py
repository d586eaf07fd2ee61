"""Text becomes markup in one way, and what could run or load something is refused."""

from __future__ import annotations

import html
import re

import pytest

from osmf_pipelines.report.markup import Html, element, joined, named

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}${7*7}%s{0}../../etc/passwd"


def test_text_is_escaped_in_cells_and_in_attributes() -> None:
    cell = element("td", HOSTILE, title=HOSTILE)
    assert "<script" not in cell
    assert html.unescape(cell.removeprefix('<td title="').split('">')[0]) == HOSTILE
    assert html.unescape(cell.split('">')[1].removesuffix("</td>")) == HOSTILE


def test_markup_stays_and_nothing_is_nothing() -> None:
    inner = element("b", "1 < 2")
    assert inner == "<b>1 &lt; 2</b>"
    assert isinstance(inner, Html)
    assert element("p", inner, None, " & ", 3) == "<p><b>1 &lt; 2</b> &amp; 3</p>"
    assert joined("a", "b", separator=" < ") == "a &lt; b"
    assert element("img", alt="x", hidden=True, width=None, class_="a") == '<img alt="x" hidden class="a">'


@pytest.mark.parametrize("attribute", ["onclick", "onError", "style", "srcdoc", "srcset", "a b", "x>"])
def test_attributes_that_could_run_something_are_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="has no place"):
        element("p", **{attribute: "x"})


@pytest.mark.parametrize(
    ("attribute", "value"), [("href", "javascript:alert(1)"), ("href", "https://x"), ("src", "x.png")]
)
def test_nothing_leads_off_the_page(attribute: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{attribute} '{re.escape(value)}"):
        element("a", **{attribute: value})


@pytest.mark.parametrize("name", ["script", "SCRIPT", "iframe", "object", "base", "b onclick=x"])
def test_elements_that_could_run_something_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no place"):
        element(name)


def test_what_no_text_shows_is_replaced() -> None:
    assert element("p", "a\x00b\x1bc\ud800d") == "<p>a\ufffdb\ufffdc\ufffdd</p>"
    assert element("p", "zwei\nZeilen\tשלום") == "<p>zwei\nZeilen\tשלום</p>"


def test_a_name_is_kept_apart_and_a_long_one_is_cut() -> None:
    assert named("\u202etxt") == "<bdi>\u202etxt</bdi>"
    assert named("x" * 20, 10) == f'<bdi title="{"x" * 20}">{"x" * 9}…</bdi>'
