"""A page that is one file: its style, its script and its pictures are inside."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from .charts import Html, html

PARTS = Path(__file__).parent


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Html]


def page(title: str, lead: Iterable[object], sections: Sequence[Section]) -> str:
    """The whole file. No script but its own runs in it, and it asks no network for anything."""
    style, script = ((PARTS / name).read_text() for name in ('page.css', 'page.js'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    links = ''.join(
        f'<a href="#s{i}">{html(section.title)}</a>' for i, section in enumerate(sections)
    )
    body = ''.join(
        f'<section id="s{i}"><h2>{html(section.title)}</h2>{"".join(section.parts)}</section>'
        for i, section in enumerate(sections)
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title><style>{style}</style></head>
<body><header><h1>{escape(title)}</h1>{''.join(f'<p>{html(line)}</p>' for line in lead)}
<nav>{links}</nav></header><main>{body}</main>
<dialog id="zoom"><div class="bar"><button data-do="previous">‹</button>
<button data-do="next">›</button><button data-do="smaller">−</button>
<button data-do="larger">+</button><span class="name"></span>
<button data-do="close">✕</button></div><div class="stage"></div></dialog>
<script>{script}</script></body></html>
"""


def text(*lines: object) -> Html:
    """Paragraphs."""
    return Html(''.join(f'<p>{html(line)}</p>' for line in lines))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], long: bool = False) -> Html:
    """A table, the first column of names, the others of numbers; ``long`` ones can be filtered."""
    rows = list(rows)
    cells = ''.join(
        '<tr>'
        + ''.join(
            f'<{tag}>{html(cell)}</{tag}>'
            for tag, cell in zip(['th', *['td'] * (len(head) - 1)], row, strict=True)
        )
        + '</tr>'
        for row in rows
    )
    find = (
        '<input class="find" type="search" placeholder="filter" aria-label="filter the table">'
        if long and len(rows) > 10
        else ''
    )
    heads = ''.join(f'<th>{html(name)}</th>' for name in head)
    return Html(
        f'<div class="table">{find}<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f'<tbody>{cells}</tbody></table></div></div>'
    )


def tiles(values: Iterable[tuple[str, str]]) -> Html:
    """Numbers that are seen first."""
    return Html(
        '<div class="tiles">'
        + ''.join(f'<div><b>{html(value)}</b>{html(name)}</div>' for name, value in values)
        + '</div>'
    )


def beside(*parts: Html) -> Html:
    """Figures beside each other, as many as there is room for."""
    return Html(f'<div class="beside">{"".join(parts)}</div>')


def folded(title: str, content: str) -> Html:
    """Long text that is shown when it is asked for."""
    return Html(f'<details><summary>{html(title)}</summary><pre>{escape(content)}</pre></details>')
