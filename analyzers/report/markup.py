"""Small pieces of HTML. Every text goes through `text`: names, consoles and rows of a trace are somebody else's words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Any value as text that cannot be markup; None as a dash, whole numbers in groups of three."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html('<span class="none">–</span>')
    if isinstance(value, int) and not isinstance(value, bool):
        return Html(f"{value:,}")
    return Html(html.escape(str(value), quote=True))


def joined(parts: Iterable[Any]) -> Html:
    """One after the other."""
    return Html("".join(text(one) for one in parts))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """An element. class_ is class, data_at is data-at; None leaves an attribute out, True writes its name alone."""
    shown = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            shown.append(f" {key}")
        elif value is not None and value is not False:
            shown.append(f' {key}="{html.escape(str(value), quote=True)}"')
    return Html(f"<{name}{''.join(shown)}>{joined(content)}</{name}>")


def table(
    caption: str, headers: Sequence[str], rows: Iterable[Sequence[Any]], *, numeric: Iterable[int] = (), empty: str = "none"
) -> Html:
    """A table that scrolls in its own box on a narrow window. numeric: columns aligned to the right."""
    right = set(numeric)
    head = joined(tag("th", one, scope="col", class_="n" if index in right else None) for index, one in enumerate(headers))
    body = []
    for row in rows:
        cells = [
            tag("th" if index == 0 else "td", one, scope="row" if index == 0 else None, class_="n" if index in right else None)
            for index, one in enumerate(row)
        ]
        body.append(tag("tr", joined(cells)))
    if not body:
        return tag("p", caption, ": ", empty, class_="quiet")
    made = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", joined(body)))
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def command(line: str) -> Html:
    """A command line with a button that copies it."""
    return tag("span", tag("code", line), tag("button", "Copy", type="button", class_="copy", data_copy=line), class_="command")
