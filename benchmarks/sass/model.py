"""A model of the clocks that a multiprocessor takes for a tile, from its instructions.

Every pipe is given what its instructions ask of it, at the rate that is published for it; the busiest is the
bound. That is what the tile takes if everything else hides behind it, and it cannot take less, as long as
the rates are right: waiting (for memory, at barriers, for a result), bank conflicts, and a cache that does
not hold what is read are not in it. Where the rest of a tile waits for its products, and no other program of
the multiprocessor fills the gap, the sum of both bounds counts instead of the larger: that is given, too.

What is counted is a way through the loops (loops.py): "least" is the common one, a tile in which nothing
is found; "most" does all that a tile can ask for. Where between them a tile is, the code does not say. What
the loop of steps does in some of its steps only (the first of a tile, say) is in neither. Where a kernel
chooses at run time how rows are copied, the widest copies are counted: rows are taken to be a multiple of 16
bytes.

The share of U takes U at the full dense rate of the chip's matrix units, which no library reaches: set
beside a measured U, the share will be lower. Sweep and dense tiles visit half of the N x N tiles, patterns
all of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from . import pipes
from .compiled import TILE, Kernel
from .loops import MULTIPLY_ADDS, Graph, Way, Ways
from .parse import Instruction


@dataclasses.dataclass(frozen=True)
class Chip:
    """Rates of a multiprocessor, a clock."""

    name: str
    tensor: dict[str, int]  # multiply-adds by operands
    of_warps: float  # share of that rate that products of one warp (mma.sync) reach
    lanes: dict[str, int]
    unit: dict[str, int]  # multiply-adds of U by dtype
    l2_bytes: float
    shared_bytes: int = 128  # 32 banks of 4 bytes: CUDA guide, "Shared memory"
    issued: int = 4  # one instruction for each of four schedulers: CUDA guide, "Compute capabilities"


# Lanes: CUDA C++ Best Practices Guide, "Throughput of Native Arithmetic Instructions", columns 8.0 and 9.0
# (32-bit integer add, compare, logic and multiply-add; 32- and 64-bit floating point; special functions).
# Tensor: A100 whitepaper (256 FP16 multiply-adds a tensor core and clock, four cores; int8 twice, TF32 half
# of it); H100 whitepaper (twice the A100's a clock; 989 TFLOPS = 132 x 4,096 x 1.83 GHz agrees).
CHIPS = {
    80: Chip(
        "A100",
        tensor={"int8": 2048, "16 bit": 1024, "tf32": 512},
        of_warps=1.0,
        lanes={pipes.ALU: 64, pipes.IMAD: 64, pipes.FP32: 64, pipes.FP64: 32, pipes.XU: 16},
        unit={"bfloat16": 1024, "float16": 1024, "float32": 64},
        l2_bytes=5120 / 108,  # A100 whitepaper: "The A100 L2 read bandwidth is 5120 Bytes/clk"
    ),
    90: Chip(
        "H100",
        tensor={"int8": 4096, "16 bit": 2048, "tf32": 1024, "fp8": 4096},
        # Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture" (arXiv 2402.13499):
        # mma reaches 62.9 % of the peak on average, wgmma more than 95 %.
        of_warps=0.629,
        lanes={pipes.ALU: 64, pipes.IMAD: 64, pipes.FP32: 128, pipes.FP64: 64, pipes.XU: 16},
        unit={"bfloat16": 2048, "float16": 2048, "float32": 128},
        # The least certain number here: NVIDIA states none; the same paper measures 4,472 bytes a clock on an
        # H800 PCIe, with plain loads. An H100 SXM has 132 multiprocessors to share as much.
        l2_bytes=4472 / 132,
    ),
}
HALVED = {"sweep": 2, "dense_tiles": 2, "patterns": 1}  # tiles of the N x N matrix, for each that is visited
ISSUE, L2, FMA = "issue", "L2", "FMA"


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of code, and how often a tile goes through it."""

    code: tuple[Instruction, ...]
    times: int

    def counts(self) -> Counter[str]:
        """Instructions by pipe, of one pass."""
        return Counter(pipes.pipe_of(i) for i in self.code)


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a tile executes: its products, and the rest of it at least and at most."""

    form: str  # how the loops stand to each other
    products: tuple[Part, ...]
    least: Part
    most: Part


def _copied(i: Instruction) -> int:
    return pipes.warp_bytes(i) if pipes.pipe_of(i) == pipes.COPY else 0


def _read(i: Instruction) -> int:
    return pipes.warp_bytes(i) if i.name == "LDG" else 0


def _fewest(_: Instruction) -> int:
    return -1


def _all(_: Instruction) -> int:
    return 1


def tile(kernel: Kernel) -> Tile:
    """The loops of a kernel, as the parts of a tile.

    A way does all products and all copies into shared memory, of which some stand behind a branch (is there
    a next tile?). It does them once a step and the rest once a visit of the tile, in one of three forms:
    the loop over the steps within the loop over tiles ("nested"); the steps written out in the loop over
    tiles ("unrolled": the products end with the last matrix instruction); or one loop over both, in which the
    rest of the tile stands behind a branch ("fused": the largest part of the loop that a branch goes around).
    A loop of steps without a loop over tiles has no rest ("steps only").
    """
    graph = Graph(kernel.code)
    loops = graph.loops_with_products()
    if not loops:
        raise ValueError(f"{kernel.name} of {kernel.backend}, sm_{kernel.chip}: no loop with matrix products")
    outer = loops[-1]
    prefer = [MULTIPLY_ADDS, _copied]
    if len(loops) == 1 and kernel.name == "patterns":  # rows come through registers
        prefer.append(_read)
    short, long = Ways(graph, (*prefer, _fewest)), Ways(graph, (*prefer, _all))
    way, long_way = short.through(outer), long.through(outer)
    if len(loops) > 1:
        return _nested(kernel, way, long_way)
    visits, code, long_code = kernel.tile.visits, tuple(way.code()), tuple(long_way.code())
    (passes,) = _times(kernel, [code], 0)
    if passes == visits:
        (done, rest), (_, long_rest) = _after_products(code), _after_products(long_code)
        return Tile("unrolled", (Part(done, passes),), Part(rest, visits), Part(long_rest, visits))
    if kernel.name == "patterns":
        return Tile("steps only", (Part(code, passes),), Part((), 0), Part((), 0))
    least, most = (Part(_without(w.guarded(outer, way).code(), code), visits) for w in (short, long))
    return Tile("fused", (Part(code, passes),), least, most)


def _nested(kernel: Kernel, way: Way, long_way: Way) -> Tile:
    around: list[Part] = []  # loops of stages around a loop of a stage's steps
    inner = [way for _, way in way.loops()]
    while len(inner) == 1 and inner[0].loops():
        around.append(Part(tuple(inner[0].code()), -(-kernel.tile.depth // kernel.tile.step)))
        inner = [way for _, way in inner[0].loops()]
    rest, most = (Part(tuple(w.code()), kernel.tile.visits) for w in (way, long_way))
    outside = sum(part.times * sum(map(MULTIPLY_ADDS, part.code)) for part in (*around, rest))
    # A loop that was laid out several times over has another one after it, for the steps that are left over.
    loops = sorted((tuple(w.code()) for w in inner), key=lambda code: -sum(map(MULTIPLY_ADDS, code)))
    found = map(Part, loops, _times(kernel, loops, outside))
    return Tile("nested", (*around, *found), rest, most)


def _after_products(code: tuple[Instruction, ...]) -> tuple[tuple[Instruction, ...], tuple[Instruction, ...]]:
    end = 1 + max(n for n, i in enumerate(code) if i.multiply_adds)
    return code[:end], code[end:]


def _without(code: Iterable[Instruction], left_out: Iterable[Instruction]) -> tuple[Instruction, ...]:
    known = set(left_out)
    return tuple(i for i in code if i not in known)


def _times(kernel: Kernel, loops: Sequence[Iterable[Instruction]], outside: int) -> list[int]:
    """Passes through loops, the largest first: what a tile multiplies says how many there are."""
    of_a_pass = [sum(map(MULTIPLY_ADDS, code)) for code in loops]
    left, times = kernel.tile.multiply_adds // kernel.warps - outside, []
    for multiply_adds in of_a_pass:
        passes, left = divmod(left, multiply_adds)
        times.append(passes)
    if left or max(times) <= 0:
        raise ValueError(
            f"{kernel.name} of {kernel.backend}, sm_{kernel.chip}: each of {kernel.warps} warps multiplies "
            f"{of_a_pass} a pass of its loops, and {outside} outside of them, "
            f"which does not add up to the {kernel.tile.multiply_adds} of a tile"
        )
    return times


def clocks(parts: Iterable[Part], warps: int, chip: Chip, copied: int | None = None) -> dict[str, float]:
    """Clocks of a multiprocessor by what they are spent on, if it did nothing else.

    copied: bytes that copies move, whatever the code says; where they run ahead, a guard stops the last.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        for i in part.code:
            pipe, times = pipes.pipe_of(i), part.times * warps
            spent[ISSUE] += times / chip.issued
            if pipe == pipes.TENSOR:
                rate = chip.tensor[pipes.operand_kind(i)] * (1.0 if i.of_warpgroup else chip.of_warps)
                spent[pipe] += times * i.multiply_adds / rate
            elif pipe in chip.lanes:
                spent[pipe] += times * pipes.WARP / chip.lanes[pipe]
            if pipe in (pipes.IMAD, pipes.FP32):  # one pipe, of which IMAD can use 64 lanes only
                spent[FMA] += times * pipes.WARP / chip.lanes[pipes.FP32]
            if pipe != pipes.COPY or copied is None:
                spent[pipes.SHARED] += times * pipes.shared_bytes(i) / chip.shared_bytes
                spent[L2] += times * pipes.l2_bytes(i) / chip.l2_bytes
    spent[pipes.SHARED] += (copied or 0) / chip.shared_bytes
    spent[L2] += (copied or 0) / chip.l2_bytes
    spent.pop(pipes.FP32, None)  # within FMA
    return dict(spent)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model says of a kernel: of a tile in which nothing is found or, `most`, everything."""

    kernel: Kernel
    tile: Tile
    chip: Chip

    def clocks(self, *, most: bool = False) -> dict[str, float]:
        """By pipe, the whole tile."""
        rest = self.tile.most if most else self.tile.least
        return clocks((*self.tile.products, rest), self.kernel.warps, self.chip, self._copied)

    def bound(self, *, most: bool = False) -> tuple[str, float]:
        """The busiest pipe, and its clocks: what a tile takes if all else hides behind it."""
        return _largest(self.clocks(most=most))

    def apart(self, *, most: bool = False) -> float:
        """Clocks if the rest of the tile waits for its products, and the next tile for it."""
        rest = self.tile.most if most else self.tile.least
        warps, chip = self.kernel.warps, self.chip
        products = clocks(self.tile.products, warps, chip, self._copied)
        return _largest(products)[1] + _largest(clocks((rest,), warps, chip, self._copied and 0))[1]

    @property
    def _copied(self) -> int | None:
        """What a tile needs in shared memory, if copies bring it there and not loads."""
        parts = (*self.tile.products, self.tile.least)
        copies = any(pipes.pipe_of(i) == pipes.COPY for part in parts for i in part.code)
        return self.kernel.copied if copies else None

    def share(self, of_clocks: float) -> float:
        """So many clocks a visited tile, in U."""
        unit = TILE * TILE * self.kernel.dim / self.chip.unit[self.kernel.dtype]
        return of_clocks / unit / HALVED[self.kernel.name]


def _largest(spent: dict[str, float]) -> tuple[str, float]:
    return max(spent.items(), key=lambda item: item[1], default=("nothing", 0.0))


def predict(kernel: Kernel) -> Prediction:
    return Prediction(kernel, tile(kernel), CHIPS[kernel.chip])
