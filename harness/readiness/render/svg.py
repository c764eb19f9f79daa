"""Turn a matplotlib figure into an inline SVG that follows the page: colours, dark mode, language.

matplotlib draws with sentinel colours and sentinel texts; this module replaces the first by CSS variables and
the second by one `<text>` per language. It leaves what is drawn to `charts`. The result is deterministic: no
date, no random id, no version string, and it needs no namespace because it lives inside an HTML document.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from readiness.judge.model import Text

#: Sentinel colour -> CSS variable of templates/page.css. The hex codes mean nothing; they only have to be
#: unique.
COLOURS: Final[dict[str, str]] = {
    "#a00001": "--ink",
    "#a00002": "--muted",
    "#a00003": "--line",
    "#a00004": "--paper",
    "#a00011": "--c-blue",
    "#a00012": "--c-sky",
    "#a00013": "--c-green",
    "#a00014": "--c-orange",
    "#a00015": "--c-vermillion",
    "#a00016": "--c-purple",
    "#a00017": "--c-fault",
}
INK, MUTED, LINE, PAPER, BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE, FAULT = COLOURS


_SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_HEX: Final = re.compile("|".join(COLOURS))
_LABEL: Final = re.compile(r"^@(\d+)@$")
_FONT: Final = re.compile(r"font: ([\d.]+)px [^;]*;")
_BOLD: Final = re.compile(r"font: (?:bold|700) ([\d.]+)px [^;]*;")
_FAMILY: Final = re.compile(r"font-family: [^;]*;? ?")
_URL: Final = re.compile(r"url\(#([^)]+)\)")


class Labels:
    """Texts of one figure in both languages.

    Hands matplotlib a sentinel for each and remembers what it stands for.
    """

    def __init__(self) -> None:
        self._texts: list[Text] = []

    def add(self, text: Text) -> str:
        """Return the sentinel that stands for `text` while the figure is drawn."""
        self._texts.append(text)
        return f"@{len(self._texts) - 1}@"

    def get(self, sentinel: str | None) -> Text | None:
        """Return the text behind a sentinel, or None when the string is an ordinary one (a tick, a unit)."""
        match = _LABEL.match(sentinel or "")
        return self._texts[int(match.group(1))] if match else None


def figure_svg(figure: Figure, labels: Labels, *, prefix: str, css_class: str) -> Markup:
    """Draw `figure` and return it as inline SVG.

    `prefix` makes the ids unique in the page; `css_class` tells the style sheet which width this drawing is
    for.
    """
    raw = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "readiness"}):
        figure.savefig(raw, format="svg", metadata=nothing)
    root = ET.fromstring(raw.getvalue())  # noqa: S314 - matplotlib wrote it a line above
    _drop(root, "metadata")
    _drop(root, "style")  # its selector is `*`, which would reach the whole page
    _rename_ids(root, prefix)
    for element in root.iter():
        _restyle(element)
    _translate(root, labels)
    _strip_namespace(root)
    view_box = root.get("viewBox", "0 0 100 100")
    root.attrib = {"class": css_class, "viewBox": view_box, "aria-hidden": "true", "focusable": "false"}
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree


def _drop(root: ET.Element, tag: str) -> None:
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag == _SVG + tag or c.tag.endswith("}" + tag)]:
            parent.remove(child)


def _rename_ids(root: ET.Element, prefix: str) -> None:
    """Keep only ids that something refers to, renamed to `<prefix>-<number>`: two charts never share one."""
    used = set(_references(root))
    names: dict[str, str] = {}
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            names[identifier] = f"{prefix}-{len(names)}"
            element.set("id", names[identifier])
    for element in root.iter():
        href = element.attrib.pop(_XLINK_HREF, None)
        if href is not None:
            element.set("href", "#" + names.get(href[1:], href[1:]))
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, _URL.sub(lambda m: f"url(#{names.get(m.group(1), m.group(1))})", value))


def _references(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        href = element.get(_XLINK_HREF)
        if href:
            yield href[1:]
        for value in element.attrib.values():
            yield from _URL.findall(value)


def _restyle(element: ET.Element) -> None:
    style = element.get("style")
    if style is None:
        return
    style = _FAMILY.sub("", style)  # the family is the page's own
    style = _BOLD.sub(r"font-weight: 600; font-size: \1px;", style)
    style = _FONT.sub(r"font-size: \1px;", style)
    element.set("style", _HEX.sub(lambda m: f"var({COLOURS[m.group()]})", style))


def _translate(root: ET.Element, labels: Labels) -> None:
    for parent in list(root.iter()):
        for index, child in reversed(list(enumerate(parent))):
            text = labels.get(child.text) if child.tag == _SVG + "text" else None
            if text is None:
                continue
            parent.remove(child)
            for offset, (lang, words) in enumerate((("en", text.en), ("ko", text.ko))):
                copy = ET.Element(child.tag, {**child.attrib, "lang": lang})
                copy.text = words
                parent.insert(index + offset, copy)


def _strip_namespace(root: ET.Element) -> None:
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = element.text.strip() if element.text and element.tag != "text" else element.text
        element.tail = None
