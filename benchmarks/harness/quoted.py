"""Figures in documents: each between two comments that a reader of the page does not see.

    <!--study random-0/supcon opis change-->-17 % (-20 to -14)<!--/study-->

The first comment has the kind, here "study", and the name of the figure; who knows the figures of a kind
makes each from its name. So the words stand in the document, and the figures in files of results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Figure = Callable[[str], str]
"""From the name of a figure to its text; raises QuoteError where there is none of that name."""


class QuoteError(ValueError):
    """A document quotes a figure that there is not; the message names it."""


def found(text: str, kind: str) -> list[tuple[str, str]]:
    """Name and text of each figure of a kind, in the order of the document.

    Raises:
        QuoteError: a comment without the one that closes it.
    """
    figures = [(match[2], match[3]) for match in _pattern(kind).finditer(text)]
    if len(figures) != text.count(f"<!--{kind} "):
        raise QuoteError(f"a figure without its <!--/{kind}-->")
    return figures


def updated(text: str, kind: str, figure: Figure) -> str:
    """A document with the figures of a kind in place.

    Raises:
        QuoteError: figures that there are not, all of them, or a comment without the one that closes it.
    """
    texts, wrong = {}, []
    for name in dict.fromkeys(name for name, _ in found(text, kind)):
        try:
            texts[name] = figure(name)
        except QuoteError as error:
            wrong.append(str(error))
    if wrong:
        raise QuoteError("; ".join(dict.fromkeys(wrong)))
    return _pattern(kind).sub(lambda match: f"{match[1]}{texts[match[2]]}{match[4]}", text)


def _pattern(kind: str) -> re.Pattern[str]:
    opening, closing = f"<!--{kind} ", f"<!--/{kind}-->"
    return re.compile(rf"({opening}([^>]+?)-->)((?:(?!{opening}).)*?)({closing})", re.DOTALL)


def main(
    module: str,
    about: str,
    kind: str,
    figure: Figure,
    documents: Sequence[Path],
    arguments: Sequence[str] | None,
) -> int:
    """The command line of a module that knows the figures of a kind; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if figures differ")
    parser.add_argument("documents", nargs="*", type=Path, default=list(documents), metavar="FILE")
    options = parser.parse_args(arguments)
    failed = False
    for document in options.documents:
        before = document.read_text(encoding="utf-8")
        try:
            after = updated(before, kind, figure)
        except QuoteError as error:
            print(f"{document}: {error}", file=sys.stderr)
            failed = True
            continue
        if not options.check:
            document.write_text(after, encoding="utf-8")
            continue
        for (name, old), (_, new) in zip(found(before, kind), found(after, kind), strict=True):
            if old != new:
                print(f"{document}: {name}: is {old!r}, the files have {new!r}", file=sys.stderr)
                failed = True
    return int(failed)
