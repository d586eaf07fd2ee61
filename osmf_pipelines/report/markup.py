"""HTML that is escaped by construction: text from logs and catalogues becomes markup through `element` alone.

Nothing on a page can run or load anything: attributes that could are refused here, and the page's content security
policy (see `page.py`) refuses them once more. What a page says belongs in the sections.
"""

from __future__ import annotations

import html
import re

_VOID = frozenset({"br", "col", "img", "meta"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
# What no text shows and no parser agrees on: control characters, halves of surrogate pairs, non-characters.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_MAX_CHARS = 160


class Html(str):
    """Markup, as `element` and `joined` make it; any other text is escaped wherever it is put."""

    __slots__ = ()


Content = Html | str | int | None


def element(name: str, /, *children: Content, **attributes: str | int | float | bool | None) -> Html:
    """Returns an element.

    Args:
        name: of the tag.
        children: markup, or text, which is escaped; None is nothing.
        attributes: an underscore in a name stands for a hyphen, one at its end for nothing (`class_`); True is an
            attribute without a value, None and False are none.

    Raises:
        ValueError: when a name is none, or an attribute could run something or load it from elsewhere.
    """
    told = [_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()]
    if not _NAME.fullmatch(name) or name.lower() in ("script", "iframe", "object", "embed", "base", "link", "form"):
        raise ValueError(f"<{name}> has no place on a page that runs and loads nothing.")
    opened = " ".join([name, *(one for one in told if one)])
    if name in _VOID:
        return Html(f"<{opened}>")
    return Html(f"<{opened}>{joined(*children)}</{name}>")


def joined(*children: Content, separator: str = "") -> Html:
    """Returns children one after the other, text among them escaped."""
    parts = [child if isinstance(child, Html) else escaped(str(child)) for child in children if child is not None]
    return Html(escaped(separator).join(parts))


def escaped(text: str) -> Html:
    """Returns text that shows as it is, save characters that nothing shows, which become U+FFFD."""
    return Html(html.escape(_UNSHOWABLE.sub("\ufffd", text), quote=True))


def named(text: str, max_chars: int = _MAX_CHARS) -> Html:
    """Returns a name that others chose: cut where it is long, its direction of writing kept from the text around."""
    if len(text) <= max_chars:
        return element("bdi", text)
    return element("bdi", f"{text[: max_chars - 1]}…", title=text[: 10 * max_chars])


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    if not _NAME.fullmatch(name) or name.lower().startswith("on") or name.lower() in ("style", "srcdoc", "srcset"):
        raise ValueError(f"attribute {name!r} has no place on a page that runs and loads nothing.")
    if value is True:
        return name
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if name == "href" and not text.startswith("#"):
        raise ValueError(f"href {text[:40]!r} leads off the page: link to a section, `#…`.")
    if name == "src" and not text.startswith("data:image/"):
        raise ValueError(f"src {text[:40]!r} is loaded from elsewhere: put the picture into the page.")
    return f'{name}="{escaped(text)}"'
