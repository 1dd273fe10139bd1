"""A page in one file: its style, its tables and its figures; whatever stands in it is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Figure", "answer", "document", "facts", "figure", "items", "paragraph", "section", "table"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --page: #ffffff; --card: #f5f7fa; --line: #d5dbe3;
  --c0: #8a93a0; --c1: #1f77b4; --c2: #d1600a; --c3: #2a8a3e; --c4: #8e4bb8; --c5: #b8325e; --c6: #0f8b8d;
  --c7: #7a6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a3adba; --page: #12161c; --card: #1b212a;
  --line: #38424f; --c0: #97a1ae; --c1: #6db4ee; --c2: #ff9a4d; --c3: #6fce83; --c4: #c799ea; --c5: #f0819f;
  --c6: #5fd0d1; --c7: #d9c54a; } }
@media print { :root { --ink: #000; --soft: #444; --page: #fff; --card: #fff; --line: #bbb; --c0: #777; --c1: #1f77b4;
  --c2: #d1600a; --c3: #2a8a3e; --c4: #8e4bb8; --c5: #b8325e; --c6: #0f8b8d; --c7: #7a6a00; }
  figure, tr { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p, li { max-width: 46rem; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.answer { background: var(--card); border-left: 4px solid var(--c1); padding: .8rem 1rem; border-radius: 4px; }
.answer p { margin: .2rem 0; } code { font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
figure { margin: 1rem 0 1.6rem; overflow-x: auto; } caption { text-align: left; }
figure svg { display: block; width: 100%; min-width: 27rem; height: auto; max-width: 46rem; }
"""


@dataclass(frozen=True)
class Figure:
    """A picture: its accessible name, what it says in words, and the SVG, or text that stands for it."""

    name: str
    text: str
    svg: str


def document(title: str, body: Sequence[str]) -> str:
    """Return a whole page; ``body`` are parts as the functions here return them."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
    )
    return f"{head}<body>\n<h1>{escape(title)}</h1>\n{chr(10).join(body)}\n</body>\n</html>\n"


def section(title: str, parts: Sequence[str]) -> str:
    """Return a heading and what stands under it."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{chr(10).join(parts)}\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; ``kind`` is a class of the style."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def items(texts: Sequence[str]) -> str:
    """Return a list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in rows)}</dl>"


def answer(lines: Sequence[str], commands: Sequence[tuple[str, str]] = ()) -> str:
    """Return what the page comes to, and commands to go with it."""
    shown = "".join(f"<p>{escape(line)}</p>" for line in lines)
    typed = "".join(f"<p>{escape(name)}: <code>{escape(command)}</code></p>" for name, command in commands)
    return f'<div class="answer">{shown}{typed}</div>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table with a caption; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f'<caption class="soft">{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(picture: Figure) -> str:
    """Return a picture with its name, and under it what it says in words."""
    name, text = escape(picture.name), escape(picture.text)
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    return f"<figure>{svg}<figcaption><strong>{name}.</strong> {text}</figcaption></figure>"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
