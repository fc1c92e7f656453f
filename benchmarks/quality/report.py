"""Writes what the records tell: study.md, summary.json, pictures, and one HTML page with all of it."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from tcm_kernels import plain_json
from tcm_kernels.evaluation.plots.drawing import as_png
from tcm_kernels.files import write_atomically

from . import figures, step_time, summary, table
from .plan import SPLITS, Arm, Size
from .records import Records
from .summary import Compared

_OPIS = ("opis", "opis_strict")
_DRAWN: dict[Arm, str] = {"tcm": "", "tcm_default": "-default"}
_SPREAD = ("spread_relative", "spread_decades")


def write(records: Records, size: Size, folder: Path) -> list[Path]:
    """All files of the report; those of a split only where a chain of it is whole."""
    rows = summary.compared(records, size)
    runs = records.runs()
    of_time = step_time.figures_to_reach(folder)
    processors = sorted({row["processor"] for of in runs.values() for row in of})
    text = table.document(rows, of_time, runs, size, processors)
    content: dict[str, Any] = {
        "steps": size.steps,
        "seeds": size.seeds,
        "processors": processors,
        "hoped_for": {
            **{arm: [vars(f) for f in summary.figures_to_reach(rows, arm)] for arm in _DRAWN},
            "time": [vars(figure) for figure in of_time],
        },
        "compared": [summary.as_dict(row) for row in rows],
    }
    written = {
        "study.md": text.encode(),
        "summary.json": plain_json.as_bytes(content, indent=1),
    }
    pictures = _pictures(rows)
    written |= pictures
    written["study.html"] = _page(text, pictures).encode()
    for name, each in written.items():
        write_atomically(folder / name, each)
    print(f"Wrote {', '.join(written)} to {folder}: {len(rows)} comparisons from {len(runs)} runs")
    return [folder / name for name in written]


def _pictures(rows: list[Compared]) -> dict[str, bytes]:
    return {
        f"{kind}{of_arm}-{split}.png": as_png(figures.arrows(rows, measures, split, arm), dpi=110)
        for split in SPLITS
        for arm, of_arm in _DRAWN.items()
        if any(row.split == split and arm in row.arms for row in rows)
        for kind, measures in (("opis", _OPIS), ("spread", _SPREAD))
    }


def _page(markdown: str, pictures: dict[str, bytes]) -> str:
    """The tables and pictures as one page that needs nothing beside itself."""
    parts, lines = [], []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
            continue
        if lines:
            parts.append(_html_table(lines))
            lines = []
        level = len(line) - len(line.lstrip("#"))
        if level:
            parts.append(f"<h{level}>{html.escape(line[level:].strip())}</h{level}>")
            split = line[level:].strip().partition(":")[0]
            for name, picture in pictures.items():
                if level == 2 and name.endswith(f"-{split}.png"):
                    data = base64.b64encode(picture).decode()
                    parts.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">')
        elif line:
            parts.append(f"<p>{_inline(line)}</p>")
    return _PAGE.replace("{body}", "\n".join(parts))


def _html_table(lines: list[str]) -> str:
    rows = [[_inline(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    head, body = rows[0], rows[2:]
    cells = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    cells += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="wide"><table>{"".join(cells)}</table></div>'


def _inline(text: str) -> str:
    """Escaped, with Markdown's bold and code."""
    found = html.escape(text)
    for mark, tag in (("**", "b"), ("`", "code")):
        parts = found.split(mark)
        opened = (f"<{tag}>{part}</{tag}>" if i % 2 else part for i, part in enumerate(parts))
        found = "".join(opened)
    return found


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What TCM adds to a base loss</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse; font-size: 13px }
  th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
  .wide { overflow-x: auto }
  img { max-width: 100%; display: block; margin: 1rem 0 }
</style></head><body>
{body}
</body></html>
"""
