"""Pictures for the page: the SVG that print shows, with hover texts, as a part of an HTML document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.artist import Artist

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
TITLE, CAPTION = "title", "caption"
"""Ids (`gid`) of texts that a page has in words of its own: they are cut off there."""
_PREFIX = "hover:"
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def set_hover_texts(artist: Artist, texts: Sequence[str]) -> None:
    """Attach what hovering shows: one text for the artist, or one for each of a line's markers."""
    artist.set_gid(_PREFIX + quote(json.dumps(list(texts))))


def add_titles(svg: bytes) -> bytes:
    """Replace the ids made by `set_hover_texts` with `<title>` elements, which browsers show on hovering."""
    root = ElementTree.fromstring(svg)
    for group in root.iter(f"{{{SVG}}}g"):
        if not group.get("id", "").startswith(_PREFIX):
            continue
        texts = json.loads(unquote(group.attrib.pop("id").removeprefix(_PREFIX)))
        markers = list(group.iter(f"{{{SVG}}}use"))
        for element, text in zip(markers or [group], texts, strict=True):
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = text
            element.insert(0, title)
    titled: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return titled


def _baseline(text: ElementTree.Element) -> float:
    """Points from the upper edge of the figure to the baseline of a text."""
    placed = next(group for group in text.iter(f"{{{SVG}}}g") if "transform" in group.attrib)
    return float(re.findall(r"[-\d.]+", placed.attrib["transform"])[1])


def inline_svg(svg: bytes, prefix: str, label: str, width: int) -> Markup:
    """An SVG of matplotlib as an element of a page, without title and caption; ids begin with `prefix`.

    `label`: for those who cannot see it; `width`: CSS pixels beyond which it does not grow.
    """
    root = ElementTree.fromstring(svg)
    left, top, across, bottom = map(float, root.attrib["viewBox"].split())
    for parent in root.iter():
        for child in list(parent):
            name = child.get("id")
            if name == TITLE:
                top = _baseline(child) + 4
            elif name == CAPTION:
                bottom = min(bottom, _baseline(child) - 9)
            if name in (TITLE, CAPTION) or child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
                # glyphs are defined where they are first used
                root.extend(child.iter(f"{{{SVG}}}defs"))
    root.set("viewBox", f"{left:g} {top:g} {across:g} {bottom - top:g}")
    used = {a or b for e in root.iter() for v in e.attrib.values() for a, b in _REFERENCE.findall(v)}
    for element in root.iter():
        name = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.set(key, _REFERENCE.sub(lambda m: m[0].replace("#", f"#{prefix}-"), " ".join(value.split())))
        if name in used:
            element.set("id", f"{prefix}-{name}")
        if element.tag != f"{{{SVG}}}title":
            element.text = None
        element.tail = None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label, "style": f"--natural:{width}px"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))
