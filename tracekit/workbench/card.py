"""How an object of the Python API shows itself: as text, by rich, and as HTML for notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """A title, facts (name, text), and the rows of a small table under its header."""

    title: str
    facts: tuple[tuple[str, str], ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    def text(self) -> str:
        """One fact a line, the table aligned: texts to the left, numbers to the right."""
        width = max((len(name) for name, _ in self.facts), default=0)
        lines = [self.title, *(f"  {name:<{width}}  {value}" for name, value in self.facts)]
        if self.rows:
            table = [self.header, *self.rows]
            widths = [max(len(row[index]) for row in table) for index in range(len(self.header))]
            lines += ["  " + "  ".join(_aligned(row, widths)).rstrip() for row in table]
        return "\n".join(lines)

    def rich(self) -> Any:
        """A rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        for name, value in self.facts:
            facts.add_row(Text(f"  {name}", style="dim"), Text(value))
        parts: list[Any] = [Text(self.title, style="bold"), facts]
        if self.rows:
            table = Table(box=None, padding=(0, 2), header_style="dim")
            for index, name in enumerate(self.header):
                table.add_column(Text(name), justify="right" if index else "left")
            for row in self.rows:
                table.add_row(*(Text(cell) for cell in row))
            parts.append(table)
        return Group(*parts)

    def html(self) -> str:
        """A fragment without styles of its own, so that it follows the notebook's light or dark theme."""
        facts = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.facts)
        out = f"<strong>{html.escape(self.title)}</strong><table>{facts}</table>"
        if self.rows:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
            body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
            out += f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div>{out}</div>"


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [
        cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
