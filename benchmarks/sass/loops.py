"""Instructions -> blocks, loops, and the ways through a loop.

A block is a run of instructions that is entered at its first and left at its last; a loop is the blocks
between a block and the jumps back to it (a natural loop). Which way a warp takes through a loop is not in the
code, so a way is chosen by what it has most of, as in: all of the loop's matrix products and, of the ways
that have them, the fewest instructions. Inner loops are single steps of a way: how often they are gone
through is for the caller to say.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence

from .parse import INSTRUCTION_BYTES, Instruction

MULTIPLY_ADDS: Callable[[Instruction], int] = operator.attrgetter("multiply_adds")


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Instructions that are executed one after the other."""

    code: tuple[Instruction, ...]
    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """The blocks that are gone through again and again."""

    header: int
    body: frozenset[int]


class Graph:
    """The blocks of a function that can be reached, and where each goes on to."""

    def __init__(self, code: Iterable[Instruction]) -> None:
        code = list(code)
        at = {i.address: n for n, i in enumerate(code)}
        calls = {i for n, i in enumerate(code) if i.name == "CALL" and _returns_here(code, n)}
        firsts = {0}
        for n, i in enumerate(code):
            if i not in calls and i.target is not None:
                firsts |= {at[i.target], n + 1}
            elif i.always_leaves and i not in calls:
                firsts.add(n + 1)
        order = sorted(firsts - {len(code)})
        self.blocks = [
            Block(tuple(code[a:b]), number)
            for number, (a, b) in enumerate(zip(order, [*order[1:], len(code)], strict=True))
        ]
        by_first = {block.code[0].address: block.number for block in self.blocks}
        self.next: list[tuple[int, ...]] = []
        for block in self.blocks:
            last = block.code[-1]
            leaves = last.always_leaves and last not in calls
            to = [] if leaves or block.number + 1 == len(self.blocks) else [block.number + 1]
            if last.target is not None and last not in calls:
                to.append(by_first[last.target])
            self.next.append(tuple(dict.fromkeys(to)))

    @functools.cached_property
    def reached(self) -> list[int]:
        """What can be reached, every block before those that it goes on to, jumps back excepted."""
        return _reverse_postorder(0, lambda b: self.next[b])

    @functools.cached_property
    def _before(self) -> dict[int, list[int]]:
        before: dict[int, list[int]] = {block: [] for block in self.reached}
        for block in self.reached:
            for to in self.next[block]:
                before[to].append(block)
        return before

    @functools.cached_property
    def _dominator(self) -> dict[int, int]:
        """The nearest block that every way to a block goes through (Cooper, Harvey and Kennedy)."""
        rank = {block: n for n, block in enumerate(self.reached)}
        found = {0: 0}
        changed = True
        while changed:
            changed = False
            for block in self.reached[1:]:
                new = None
                for other in self._before[block]:
                    if other in found:
                        new = other if new is None else _meet(new, other, found, rank)
                assert new is not None
                if found.get(block) != new:
                    found[block], changed = new, True
        return found

    def _dominates(self, a: int, b: int) -> bool:
        while b not in (a, 0):
            b = self._dominator[b]
        return a == b

    @functools.cached_property
    def loops(self) -> list[Loop]:
        """All natural loops, inner ones before those around them."""
        found = []
        for header in self.reached:
            body, left = {header}, [b for b in self._before[header] if self._dominates(header, b)]
            if left:
                while left:
                    block = left.pop()
                    if block not in body:
                        body.add(block)
                        left += self._before[block]
                found.append(Loop(header, frozenset(body)))
        return sorted(found, key=lambda loop: len(loop.body))

    def loops_with_products(self) -> list[Loop]:
        """Loops with matrix products, the innermost first."""
        multiplying = {b.number for b in self.blocks if any(map(MULTIPLY_ADDS, b.code))}
        return [loop for loop in self.loops if loop.body & multiplying]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way through a loop: its blocks and, as single steps, the loops inside it."""

    steps: tuple[Block | tuple[Loop, Way], ...]

    def loops(self) -> list[tuple[Loop, Way]]:
        """The inner loops with matrix products."""
        return [step for step in self.steps if isinstance(step, tuple) and step[1].value(MULTIPLY_ADDS)]

    def code(self) -> Iterator[Instruction]:
        """What is executed but for the inner loops with products; other loops are gone through once."""
        for step in self.steps:
            if isinstance(step, Block):
                yield from step.code
            elif not step[1].value(MULTIPLY_ADDS):
                yield from step[1].code()

    def value(self, of: Callable[[Instruction], int]) -> int:
        """A sum over the way, inner loops gone through once."""
        return sum(
            sum(map(of, step.code)) if isinstance(step, Block) else step[1].value(of) for step in self.steps
        )


class Ways:
    """Ways through the loops of a graph, chosen by what they have most of.

    prefer: functions of an instruction whose sums decide, the first before the second and so on.
    """

    def __init__(self, graph: Graph, prefer: Sequence[Callable[[Instruction], int]]) -> None:
        self.graph = graph
        self.prefer = prefer

    def through(self, loop: Loop, first: tuple[int, ...] = ()) -> Way:
        """The best way from the loop's header back to it; it begins with the blocks of `first` if given."""
        inside = self._inner(loop)
        node_of = {b: inner.header for inner in inside for b in inner.body}
        inner_ways = {inner.header: (inner, self.through(inner)) for inner in inside}
        following: dict[int, set[int]] = {}
        last = set()
        for block in loop.body:
            node = node_of.get(block, block)
            following.setdefault(node, set())
            for to in self.graph.next[block]:
                if to == loop.header:
                    last.add(node)
                elif to in loop.body and node_of.get(to, to) != node:
                    following[node].add(node_of.get(to, to))
        for block, to in itertools.pairwise(first):
            following[block] = {to}
            last.discard(block)
        steps = {n: inner_ways.get(n, self.graph.blocks[n]) for n in following}
        best: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for node in _reverse_postorder(loop.header, lambda n: following[n]):
            way, value = best.get(node, ((), (0,) * len(self.prefer)))
            step = Way((steps[node],))
            value = tuple(v + step.value(of) for v, of in zip(value, self.prefer, strict=True))
            best[node] = (*way, node), value
            for to in following[node]:
                if to not in best or best[to][1] < value:
                    best[to] = best[node]
        nodes, _ = max((best[node] for node in last if node in best), key=lambda found: found[1])
        return Way(tuple(steps[n] for n in nodes))

    def _inner(self, loop: Loop) -> list[Loop]:
        """The largest loops inside a loop."""
        inside = [x for x in self.graph.loops if x.body < loop.body and x.header != loop.header]
        return [x for x in inside if not any(x.body < other.body for other in inside)]

    def guarded(self, loop: Loop, way: Way) -> Way:
        """Like `way`, but through the largest part of the loop that one of its branches goes around."""
        on_way = [s.number if isinstance(s, Block) else s[0].header for s in way.steps]
        found: tuple[int, tuple[int, ...]] = (0, ())
        for n, block in enumerate(on_way):
            for to in self.graph.next[block]:
                if to in loop.body and to not in on_way:
                    part = self._reach(to, {*on_way} | (set(self.graph.reached) - loop.body))
                    size = sum(len(self.graph.blocks[b].code) for b in part)
                    found = max(found, (size, (*on_way[: n + 1], to)))
        return self.through(loop, found[1]) if found[1] else way

    def _reach(self, start: int, without: set[int]) -> set[int]:
        return {*_reverse_postorder(start, lambda b: [x for x in self.graph.next[b] if x not in without])}


def _returns_here(code: Sequence[Instruction], n: int) -> bool:
    """Whether the call at n is one: it leaves the address behind it in a register. Others are far jumps."""
    behind = f"0x{code[n].address + INSTRUCTION_BYTES:x}"
    return any(i.operands.endswith(f" {behind}") for i in code[max(0, n - 12) : n])


def _reverse_postorder(start: int, following: Callable[[int], Iterable[int]]) -> list[int]:
    order, seen, stack = [], {start}, [(start, iter(following(start)))]
    while stack:
        block, left = stack[-1]
        for to in left:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(following(to))))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def _meet(a: int, b: int, dominator: dict[int, int], rank: dict[int, int]) -> int:
    while a != b:
        while rank[a] > rank[b]:
            a = dominator[a]
        while rank[b] > rank[a]:
            b = dominator[b]
    return a
