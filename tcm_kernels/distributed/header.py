"""What the ranks tell each other before anything large is sent: one all-gather of a few hundred bytes.

Each rank sends how many rows it has, its settings, and what is wrong with its arguments if anything is. All
ranks then see the same table, so all of them go on, or all raise the same exception. Reading the table is the
only time the host waits for a GPU in a loss, and even that only where the group sends nothing from main
memory.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..validation import EMBEDDING_DTYPES
from .ranks import Ranks

EXCEPTIONS = (TypeError, ValueError, RuntimeError)
MODES = ("auto", "gather", "ring", "rows")
REDUCTIONS = ("mean", "sum")
DEVICES = ("cpu", "cuda")
_TEXT_WORDS = 60  # of eight bytes each, for the message of an exception
_VERSION = 1  # of the table's layout: packages of different ages on two ranks are told apart


class Wishes(NamedTuple):
    """One rank's arguments, as far as the other ranks must know of them.

    What stands before `rows` must be the same on all ranks.
    """

    columns: int
    dtype: torch.dtype
    device: str
    has_unsigned_labels: bool
    margins: tuple[float, float] | Tensor  # [m+, m-]; a tensor's values are read with the table
    lambdas: tuple[float, float]
    mode: str
    gradient_reduction: str
    needs_grad: bool
    has_ref: bool
    ref_sharded: bool
    rows: int
    ref_rows: int
    wants_stats: bool
    memory: int  # bytes that gathered rows may take


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What all ranks know.

    Attributes:
        rows: of emb, by rank.
        ref_rows: of the reference set, by rank.
        wants_stats: whether any rank wants statistics, for which all have to send labels.
        memory: bytes that gathered rows may take, the least of all ranks.
    """

    rows: tuple[int, ...]
    ref_rows: tuple[int, ...]
    wants_stats: bool
    memory: int

    @classmethod
    def promised(cls, ranks: Ranks, wishes: Wishes) -> Agreement:
        """Where all ranks have promised to call with the same sizes and settings."""
        return cls(
            (wishes.rows,) * ranks.size, (wishes.ref_rows,) * ranks.size, wishes.wants_stats, wishes.memory
        )


@dataclasses.dataclass(frozen=True)
class _Field:
    """A setting that must be the same on all ranks: its words in the table, and how a message shows them."""

    name: str
    show: Callable[[int], str]


def _index(values: Sequence[Any], value: Any) -> int:
    return values.index(value) if value in values else -1


def _one_of(values: Sequence[Any]) -> Callable[[int], str]:
    return lambda word: str(values[word]) if 0 <= word < len(values) else "another one"


def _bits(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _float(word: int) -> str:
    return repr(struct.unpack("<d", struct.pack("<q", word))[0])


_GIVEN = ("none", "one")
_FIELDS = (
    _Field("the package's version of the protocol", str),
    _Field("columns of emb", str),
    _Field("dtype of emb", _one_of(EMBEDDING_DTYPES)),
    _Field("device of emb", _one_of(DEVICES)),
    _Field("dtype of labels", _one_of(("signed, or up to 32 bits", "torch.uint64"))),
    _Field("margin_plus", _float),
    _Field("margin_minus", _float),
    _Field("lambda_plus", _float),
    _Field("lambda_minus", _float),
    _Field("mode", _one_of(MODES)),
    _Field("gradient_reduction", _one_of(REDUCTIONS)),
    _Field("whether emb wants a gradient", _one_of(("no", "yes"))),
    _Field("ref_emb", _one_of(_GIVEN)),
    _Field("ref_sharded", _one_of((False, True))),
)
_MARGINS = next(i for i, field in enumerate(_FIELDS) if field.name == "margin_plus")
# After the fields: rows, reference rows, wants_stats, memory, kind of exception (0 for none), its message.
_ROWS = len(_FIELDS)
_KIND = _ROWS + 4
_WORDS = _KIND + 1 + _TEXT_WORDS


def exchange(ranks: Ranks, device: torch.device, wishes: Wishes | Exception) -> Agreement:
    """Tell all ranks this rank's wishes, or what is wrong with its arguments.

    Args:
        ranks: the process group.
        device: where the table travels.
        wishes: of this rank, or the exception that its arguments have raised, one of EXCEPTIONS.

    Returns:
        What all ranks know, the same on all.

    Raises:
        TypeError, ValueError, RuntimeError: on every rank alike: what was wrong on some rank, with its
            message and its number; or ValueError: ranks differ in a setting.
    """
    own = torch.tensor(_words_of(wishes), dtype=torch.int64).to(device)
    if isinstance(wishes, Wishes) and isinstance(wishes.margins, Tensor):
        own[_MARGINS : _MARGINS + 2] = wishes.margins.view(torch.int64)
    table = ranks.all_gather(own).tolist()  # waits for the device, once
    try:
        _raise_what_ranks_report(table)
    except EXCEPTIONS as error:
        raise error from (wishes if isinstance(wishes, Exception) else None)
    _raise_where_ranks_differ(table)
    rows, ref_rows, wants_stats, memory = zip(*(words[_ROWS:_KIND] for words in table), strict=True)
    if isinstance(wishes, Wishes) and wishes.has_ref and not wishes.ref_sharded:
        _raise_where_differ("rows of ref_emb, which with ref_sharded=False every rank has", ref_rows, str)
    return Agreement(rows, ref_rows, any(wants_stats), min(memory))


def _words_of(wishes: Wishes | Exception) -> list[int]:
    words = [0] * _WORDS
    words[0] = _VERSION
    if isinstance(wishes, Exception):
        words[_KIND] = 1 + next(i for i, kind in enumerate(EXCEPTIONS) if isinstance(wishes, kind))
        text = str(wishes).encode()[: 8 * _TEXT_WORDS].ljust(8 * _TEXT_WORDS, b"\0")
        words[_KIND + 1 :] = struct.unpack(f"<{_TEXT_WORDS}q", text)
        return words
    margins = (0.0, 0.0) if isinstance(wishes.margins, Tensor) else wishes.margins
    words[1:_KIND] = (
        wishes.columns,
        _index(EMBEDDING_DTYPES, wishes.dtype),
        _index(DEVICES, wishes.device),
        wishes.has_unsigned_labels,
        *map(_bits, margins),
        *map(_bits, wishes.lambdas),
        _index(MODES, wishes.mode),
        _index(REDUCTIONS, wishes.gradient_reduction),
        wishes.needs_grad,
        wishes.has_ref,
        wishes.ref_sharded,
        wishes.rows,
        wishes.ref_rows,
        wishes.wants_stats,
        wishes.memory,
    )
    return words


def _raise_what_ranks_report(table: list[list[int]]) -> None:
    reports: dict[tuple[int, str], list[int]] = {}
    for rank, words in enumerate(table):
        if words[_KIND] and words[0] == _VERSION:
            text = struct.pack(f"<{_TEXT_WORDS}q", *words[_KIND + 1 :]).rstrip(b"\0").decode(errors="ignore")
            reports.setdefault((words[_KIND], text), []).append(rank)
    if reports:
        kind = EXCEPTIONS[next(iter(reports))[0] - 1]
        raise kind("; ".join(f"on {_named(of)}: {text}" for (_, text), of in reports.items()))


def _raise_where_ranks_differ(table: list[list[int]]) -> None:
    for i, field in enumerate(_FIELDS):
        _raise_where_differ(field.name, [words[i] for words in table], field.show)


def _raise_where_differ(name: str, values: Sequence[int], show: Callable[[int], str]) -> None:
    of_value: dict[int, list[int]] = {}
    for rank, value in enumerate(values):
        of_value.setdefault(value, []).append(rank)
    if len(of_value) > 1:
        found = " and ".join(f"{show(value)} on {_named(of)}" for value, of in of_value.items())
        raise ValueError(f"{name}: got {found}; expected the same on every rank")


def _named(ranks: Iterable[int]) -> str:
    """As in "rank 3", "ranks 0 and 2", "ranks 0, 1, 2 and 9 more"."""
    names = [str(rank) for rank in ranks]
    if len(names) == 1:
        return f"rank {names[0]}"
    if len(names) > 8:
        names = [*names[:7], f"{len(names) - 7} more"]
    return f"ranks {', '.join(names[:-1])} and {names[-1]}"
