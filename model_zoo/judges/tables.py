"""Tables in a judge's answer whose first row names the values: Markdown, CSV, tabs."""

from __future__ import annotations

import re

_DELIMITERS = ("|", "\t", ";", ",")
"""What separates cells; the first of these in the row of names does in its table."""
_RULE = re.compile(r"[\s|:+-]*-[\s|:+-]*")
"""The line below the names in Markdown."""
_SIGNS = " \r*_`\"'"
"""Signs around a cell that are no part of it."""
_REMARK = re.compile(r"\s*\([^()]*\)\Z")


def tables_as_lines(text: str, name: re.Pattern[str]) -> str:
    """Return a text in which the rows of tables are lines of `name: value`.

    A table begins with a row of names: two or more of its cells are a name, with or without a
    remark in parentheses. The rows below have as many cells; the first line that has not ends the
    table. Columns of other names are left out. Each of several rows states its values.

    Args:
        text: a part of an answer.
        name: finds the names of values.
    """
    lines, names, delimiter = [], [""], ""
    for line in text.split("\n"):
        cells = _cells(line, delimiter) if delimiter else []
        if delimiter and len(cells) == len(names):
            if not _RULE.fullmatch(line):
                lines += [f"{key}: {cell}" for key, cell in zip(names, cells, strict=True) if key]
            continue
        delimiter = next((sign for sign in _DELIMITERS if sign in line), "")
        names = [_name(cell, name) for cell in _cells(line, delimiter)] if delimiter else [""]
        if sum(map(bool, names)) < 2:
            delimiter = ""
            lines.append(line)
    return "\n".join(lines)


def _cells(line: str, delimiter: str) -> list[str]:
    line = line.strip()
    if delimiter == "|":
        line = line.removeprefix("|").removesuffix("|")
    return [cell.strip(_SIGNS) for cell in line.split(delimiter)]


def _name(cell: str, name: re.Pattern[str]) -> str:
    """Return the name that a cell holds, '' for another text."""
    cell = _REMARK.sub("", cell).strip(_SIGNS)
    return cell if name.fullmatch(cell) else ""
