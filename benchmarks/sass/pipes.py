"""Which pipe an instruction of sm_80 or sm_90 goes to, and what it moves.

The pipes are those of Nsight Compute's Kernel Profiling Guide ("Pipelines"): the ALU does integer work but
for IMAD, which the FMA pipe does beside FP32; XU does transcendental functions and what the throughput table
of the CUDA guide gives 16 a clock; LSU does shared memory and shuffles. Uniform instructions, constants and
control have no published rate: they count as issue slots.
"""

from __future__ import annotations

import re

from .parse import Instruction

TENSOR, SHARED, GLOBAL, COPY, ALU, IMAD, FP32, FP64, XU, UNIFORM, CONSTANT, CONTROL, UNKNOWN = PIPES = (
    *("tensor", "shared", "global", "copy to shared", "ALU", "IMAD", "FP32", "FP64", "XU"),
    *("uniform", "constant", "control", "unknown"),
)

_NAMES = {
    SHARED: "LDS LDSM STS STSM ATOMS SHFL MATCH MOVM SYNCS",
    GLOBAL: "LDG STG LD ST RED REDG ATOM ATOMG LDL STL CCTL CCTLL",
    COPY: "LDGSTS UBLKCP UTMALDG UTMASTG UTMAREDG UTMAPF UTMACCTL UTMACMDFLUSH",
    ALU: """ISETP SEL LOP3 LOP IADD3 IADD IADD32I LEA SHF SHL SHR FSETP FMNMX FSEL FSET VIADD VIMNMX VIMNMX3
        VIADDMNMX IMNMX PLOP3 PRMT MOV MOV32I IABS ISCADD P2R R2P SGXT BMSK I2FP F2FP VOTE VABSDIFF VABSDIFF4
        HSETP2 HSET2 HMNMX2 CS2R FCHK PSETP LEPC VHMNMX F2IP I2IP""",
    IMAD: "IMAD IMUL IDP IDP4A IMAD32I IMUL32I XMAD",
    FP32: "FADD FMUL FFMA HADD2 HMUL2 HFMA2 FADD32I FMUL32I FFMA32I HADD2_32 HMUL2_32 HFMA2_32 FSWZADD",
    FP64: "DADD DMUL DFMA DSETP DMNMX",
    XU: "MUFU POPC FLO BREV F2F F2I I2F I2I FRND REDUX",
    UNIFORM: "R2UR S2UR VOTEU REDUXU",
    CONSTANT: "LDC ULDC LDCU",
    CONTROL: """BRA BRX JMP JMX BSSY BSYNC BREAK BMOV CALL RET EXIT BAR WARPSYNC DEPBAR LDGDEPBAR ARRIVES
        MEMBAR ERRBAR CGAERRBAR NOP YIELD ENDCOLLECTIVE FENCE WARPGROUP WARPGROUPSET NANOSLEEP S2R B2R R2B
        ELECT ACQBULK PREEXIT KILL UCGABAR_ARV UCGABAR_WAIT PMTRIG""",
}
_PIPE_OF = {name: pipe for pipe, names in _NAMES.items() for name in names.split()}
_BITS = {"128": 128, "64": 64, "U16": 16, "S16": 16, "16": 16, "U8": 8, "S8": 8, "8": 8}
WARP = 32


def pipe_of(i: Instruction) -> str:
    """The pipe that executes an instruction, or UNKNOWN; one that no lane may execute only takes a slot."""
    if i.guard in ("@!PT", "@!UPT"):
        return CONTROL
    if i.matrix_shape is not None:
        return TENSOR
    if i.name in _PIPE_OF:
        return _PIPE_OF[i.name]
    # Uniform instructions are called as the others are, with a U before it.
    return UNIFORM if i.name.startswith("U") and i.name[1:] in _PIPE_OF else UNKNOWN


def operand_kind(i: Instruction) -> str:
    """What a matrix product multiplies: "int8", "16 bit", "tf32" or "fp8"."""
    if i.name in ("IMMA", "IGMMA"):
        return "int8"
    if i.name.startswith("Q"):
        return "fp8"
    return "tf32" if "TF32" in i.modifiers else "16 bit"


def warp_bytes(i: Instruction) -> int:
    """What a warp moves with a load, store or copy, each lane from and to a place of its own.

    How much a copy by the tensor memory accelerator moves is not in the code: none, here.
    """
    if i.name.startswith("U"):
        return 0
    if i.name in ("LDSM", "STSM"):
        return 128 * int(i.modifiers[-1]) if i.modifiers[-1] in ("2", "4") else 128
    return WARP * next((_BITS[m] for m in i.modifiers if m in _BITS), 32) // 8


def shared_bytes(i: Instruction) -> float:
    """What a warp's instruction asks of shared memory, of which it takes a line of 128 bytes at least.

    A matrix product of a warp group reads its columns there and, unless registers hold them, its rows: once
    for all four warps, and at the rate of other reads, as it must be taken while NVIDIA says neither.
    """
    if i.of_warpgroup and i.matrix_shape is not None:
        m, n, k = i.matrix_shape
        rows = m if re.match(r"\w+, gdesc", i.operands) else 0
        element = {"int8": 1, "fp8": 1, "16 bit": 2, "tf32": 4}[operand_kind(i)]
        return (rows + n) * k * element / 4
    return float(max(128, warp_bytes(i))) if pipe_of(i) in (SHARED, COPY) else 0.0


def l2_bytes(i: Instruction) -> int:
    """What a warp's instruction asks of the L2 cache: copies, and loads and stores of 16 bytes a lane.

    Narrower ones are mostly of numbers that several lanes want, and that the L1 cache holds.
    """
    pipe = pipe_of(i)
    wide = pipe == GLOBAL and i.name in ("LDG", "STG") and warp_bytes(i) >= 16 * WARP
    return warp_bytes(i) if pipe == COPY or wide else 0
