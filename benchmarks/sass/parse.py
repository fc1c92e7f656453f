"""Machine code as text -> instructions: what `cuobjdump --dump-sass` prints, line by line."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
INSTRUCTION_BYTES = 16
_WARP_MATRICES = {  # rows, columns and depth of a warp's product, by how its name ends
    "884": (8, 8, 4),
    "8816": (8, 8, 16),
    "8832": (8, 8, 32),
    "1684": (16, 8, 4),
    "1688": (16, 8, 8),
    "16816": (16, 8, 16),
    "16832": (16, 8, 32),
    "16864": (16, 8, 64),
}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: where it is, under which condition, what it does, with what."""

    address: int
    guard: str  # "@P0", "@!UP1" or ""
    mnemonic: str  # "IMMA.16832.S8.S8"
    operands: str

    @functools.cached_property
    def name(self) -> str:
        """The mnemonic without its modifiers."""
        return self.mnemonic.partition(".")[0]

    @functools.cached_property
    def modifiers(self) -> tuple[str, ...]:
        """The rest of the mnemonic."""
        return tuple(self.mnemonic.split(".")[1:])

    @functools.cached_property
    def matrix_shape(self) -> tuple[int, int, int] | None:
        """Rows, columns and depth of a matrix product; None for anything else."""
        if not self.name.endswith("MMA") or self.name in ("DFMMA",):
            return None
        for modifier in self.modifiers:
            if modifier in _WARP_MATRICES:
                return _WARP_MATRICES[modifier]
            if match := re.fullmatch(r"(\d+)x(\d+)x(\d+)", modifier):
                m, n, k = map(int, match.groups())
                return m, n, k
        return None

    @property
    def of_warpgroup(self) -> bool:
        """Whether four warps do this matrix product together."""
        return self.matrix_shape is not None and self.name.endswith("GMMA")

    @property
    def multiply_adds(self) -> int:
        """What one warp's execution adds to the multiply-adds of its block."""
        if self.matrix_shape is None:
            return 0
        m, n, k = self.matrix_shape
        return m * n * k // (4 if self.of_warpgroup else 1)

    @property
    def target(self) -> int | None:
        """Where a branch or a call goes to. Ways of a warp whose lanes have parted are not followed."""
        if self.name not in ("BRA", "CALL") or "DIV" in self.modifiers:
            return None
        match = re.search(r"0x([0-9a-f]+)$", self.operands)
        return int(match[1], 16) if match else None

    @property
    def always_leaves(self) -> bool:
        """Whether what follows it is not executed because of it."""
        if self.guard:
            return False
        one_operand = self.target is not None and "," not in self.operands
        return one_operand or self.name in ("EXIT", "RET", "BRX", "JMX", "JMP")


def instructions(text: str) -> Iterator[Instruction]:
    """Those of one function."""
    for line in text.splitlines():
        if match := _LINE.match(line):
            address, guard, mnemonic, operands = match.groups()
            yield Instruction(int(address, 16), guard or "", mnemonic, operands.strip())


def functions(text: str) -> dict[str, str]:
    """The text of each function of a `cuobjdump --dump-sass`, by its (mangled) name."""
    parts = re.split(r"^\s*Function : (\S+)\s*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
