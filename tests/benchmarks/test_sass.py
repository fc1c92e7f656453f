"""The model of clocks a tile: its reading of machine code and its arithmetic, on code whose loops and counts
are known, and on ours, of which it is known how much a tile multiplies."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from typing import Any

import pytest
from compiling_python import ROOT, python

from benchmarks.sass import __main__ as command
from benchmarks.sass import model, parse, pipes
from benchmarks.sass.compiled import Kernel, TileOf
from benchmarks.sass.loops import MULTIPLY_ADDS, Graph, Ways

PRODUCT = "IGMMA.64x128x32.S8.S8 R24, gdesc[UR4], R24"  # two of these by four warps: 128 x 128 x 32
COPY = "LDGSTS.E.BYPASS.LTC128B.128 [R4], desc[UR6][R6.64]"


def listing(*lines: str) -> str:
    """Lines as `cuobjdump` prints them; "name:" before one names its address, as in "BRA {name}"."""
    split = [re.fullmatch(r"(?:(\w+):)?\s*(@\S+)?\s*(.*)", line) for line in lines]
    at = {match[1]: f"0x{n * 16:x}" for n, match in enumerate(split) if match and match[1]}
    return "".join(
        f"        /*{n * 16:04x}*/  {match[2] or '':>6} {match[3].format(**at)} ;  /* 0x0000000000007918 */\n"
        f"                                                                  /* 0x000fc00000000000 */\n"
        for n, match in enumerate(split)
        if match
    )


def graph(*lines: str) -> Graph:
    return Graph(parse.instructions(listing(*lines)))


def kernel(*lines: str, name: str = "sweep", depth: int = 128, warps: int = 4, **of_tile: int) -> Kernel:
    code = tuple(parse.instructions(listing(*lines)))
    return Kernel("triton", name, 90, depth, "bfloat16", code, 168, 0, warps, TileOf(depth, 32, **of_tile))


def names(part: model.Part) -> list[str]:
    return [i.name for i in part.code]


# The loop over steps within the loop over tiles, some skipped, and few of which have bits to store.
NESTED = (
    "LDC R1, c[0x0][0x28]",
    "@P0 EXIT",
    "tiles: ISETP.GE.AND P1, PT, R2, R3, PT",
    "@P1 BRA {next}",
    "steps: @P2 BRA {full}",  # nothing left to copy
    COPY,
    f"full: {PRODUCT}",
    PRODUCT,
    "@P3 BRA {steps}",
    "VIMNMX R5, R5, R24, !PT",
    "@P4 BRA {done}",  # nothing found
    "MOV R20, {back}",
    "CALL.REL.NOINC {subroutine}",
    "back: STG.E desc[UR6][R8.64], R9",
    "STG.E desc[UR6][R8.64+0x4], R9",
    "done: STG.E desc[UR6][R10.64], R5",
    "next: IADD3 R2, R2, 0x1, RZ",
    "BRA {tiles}",
    "subroutine: MUFU.RCP R7, R7",
    "RET.REL.NODEC R20 0x0",
    "end: BRA {end}",
)
# The same as one loop over tiles and steps.
FUSED = (
    "loop: LDGSTS.E.BYPASS.LTC128B.128 [R4], desc[UR6][R6.64]",
    PRODUCT,
    PRODUCT,
    "@P0 BRA {more}",  # not the tile's last step
    "VIMNMX R5, R5, R24, !PT",
    "@P4 BRA {done}",
    "SHF.R.U32.HI R5, RZ, 0x2, R5",
    "STG.E desc[UR6][R8.64], R9",
    "done: STG.E desc[UR6][R10.64], R5",
    "more: IADD3 R2, R2, 0x1, RZ",
    "@P1 BRA {loop}",
    "EXIT",
)


def test_lines_are_read_with_their_condition_and_operands():
    text = "\t\tFunction : one\n" + listing("@!UP0 BRA {there}", "there: EXIT") + "\t\tFunction : two\n"
    text += listing("IMMA.16832.S8.S8.SAT R4, R8.ROW, R10.COL, R4") + "\n\t\t..........\n"
    one, two = (list(parse.instructions(code)) for code in parse.functions(text).values())
    assert [(i.address, i.guard, i.mnemonic) for i in one] == [(0, "@!UP0", "BRA"), (16, "", "EXIT")]
    assert one[0].target == 16
    assert [(i.name, i.modifiers, i.operands) for i in two] == [
        ("IMMA", ("16832", "S8", "S8", "SAT"), "R4, R8.ROW, R10.COL, R4")
    ]


@pytest.mark.parametrize(
    ("mnemonic", "multiply_adds", "kind"),
    [
        ("IMMA.16832.S8.S8", 16 * 8 * 32, "int8"),
        ("HMMA.16816.F32.BF16", 16 * 8 * 16, "16 bit"),
        ("HMMA.1688.F32.TF32", 16 * 8 * 8, "tf32"),
        ("IGMMA.64x128x32.S8.S8", 64 * 128 * 32 // 4, "int8"),
        ("HGMMA.64x256x16.F32", 64 * 256 * 16 // 4, "16 bit"),
        ("QGMMA.64x64x32.F32.E4M3.E4M3", 64 * 64 * 32 // 4, "fp8"),
    ],
)
def test_matrix_products_say_what_a_warp_multiplies(mnemonic, multiply_adds, kind):
    (i,) = parse.instructions(listing(f"{mnemonic} R24, R8, gdesc[UR4], R24"))
    assert i.multiply_adds == multiply_adds
    assert pipes.pipe_of(i) == pipes.TENSOR
    assert pipes.operand_kind(i) == kind


@pytest.mark.parametrize(
    ("line", "pipe", "shared", "of_l2"),
    [
        ("IADD3 R1, R2, R3, RZ", pipes.ALU, 0, 0),
        ("VIADDMNMX R1, R2, R3, R4, !PT", pipes.ALU, 0, 0),
        ("IMAD.WIDE.U32 R2, R3, R4, R5", pipes.IMAD, 0, 0),
        ("HFMA2.BF16_V2 R1, R2, R3, R4", pipes.FP32, 0, 0),
        ("FFMA R1, R2, R3, R4", pipes.FP32, 0, 0),
        ("DFMA R2, R4, R6, R8", pipes.FP64, 0, 0),
        ("POPC R1, R2", pipes.XU, 0, 0),
        ("UIADD3 UR4, UR4, 0x1, URZ", pipes.UNIFORM, 0, 0),
        ("ULDC.64 UR4, c[0x0][0x208]", pipes.CONSTANT, 0, 0),
        ("BAR.SYNC.DEFER_BLOCKING 0x0", pipes.CONTROL, 0, 0),
        ("SHFL.BFLY PT, R1, R2, 0x1, 0x1f", pipes.SHARED, 128, 0),
        ("LDS.U8 R1, [R2]", pipes.SHARED, 128, 0),  # a line, however little of it
        ("LDS.128 R4, [R2]", pipes.SHARED, 512, 0),
        ("@!PT LDS RZ, [RZ]", pipes.CONTROL, 0, 0),  # never: only its slot is taken
        ("LDSM.16.M88.4 R4, [R2]", pipes.SHARED, 512, 0),
        (COPY, pipes.COPY, 512, 512),
        ("LDG.E.128 R4, desc[UR6][R2.64]", pipes.GLOBAL, 0, 512),
        ("LDG.E.64 R4, desc[UR6][R2.64]", pipes.GLOBAL, 0, 0),  # what the L1 cache holds
        ("IGMMA.64x128x32.S8.S8 R24, gdesc[UR4], R24", pipes.TENSOR, (64 + 128) * 32 / 4, 0),
        ("IGMMA.64x128x32.S8.S8 R24, R8, gdesc[UR4], R24", pipes.TENSOR, 128 * 32 / 4, 0),
        ("NOSUCH.X R1", pipes.UNKNOWN, 0, 0),
    ],
)
def test_an_instruction_goes_to_its_pipe_and_moves_its_bytes(line, pipe, shared, of_l2):
    (i,) = parse.instructions(listing(line))
    assert pipes.pipe_of(i) == pipe
    assert pipes.shared_bytes(i) == shared
    assert pipes.l2_bytes(i) == of_l2


def test_loops_are_found_with_what_is_in_them():
    of_kernel = Graph(kernel(*NESTED).code)
    steps, tiles = of_kernel.loops  # the one after the end cannot be reached
    assert [of_kernel.blocks[loop.header].code[0].address for loop in (steps, tiles)] == [0x40, 0x20]
    assert steps.body < tiles.body
    inside = [i.address for b in sorted(steps.body) for i in of_kernel.blocks[b].code]
    assert inside == [0x40, 0x50, 0x60, 0x70, 0x80]


def test_a_cycle_that_is_entered_at_two_places_is_no_loop():
    assert not graph("@P0 BRA {b}", "a: IADD3 R1, R1, R2, RZ", "b: NOP", "@P1 BRA {a}", "EXIT").loops


def test_a_far_jump_written_as_a_call_is_followed_and_a_real_call_is_not():
    jumps = graph("loop: IADD3 R1, R1, R2, RZ", "@P0 CALL.REL.NOINC {out}", "BRA {loop}", "out: EXIT")
    assert jumps.next == [(1, 2), (0,), ()]
    calls = graph("MOV R20, 0x20", "CALL.REL.NOINC {sub}", "EXIT", "sub: RET.REL.NODEC R20 0x0")
    assert calls.reached == [0]


def test_ways_of_warps_whose_lanes_have_parted_are_left_out():
    assert graph("BRA.DIV UR4, {apart}", "EXIT", "apart: WARPSYNC 0xffffffff", "EXIT").reached == [0]


def test_a_way_does_all_products_and_copies_and_then_as_little_as_it_can():
    of_nested = Graph(kernel(*NESTED).code)
    steps, tiles = of_nested.loops_with_products()

    def copied(i: parse.Instruction) -> int:
        return i.name == "LDGSTS"

    shortest = Ways(of_nested, (MULTIPLY_ADDS, copied, lambda _: -1)).through(tiles)
    ((inner, way),) = shortest.loops()
    assert inner is steps
    assert [i.name for i in way.code()] == ["BRA", "LDGSTS", "IGMMA", "IGMMA", "BRA"]
    assert [i.name for i in shortest.code()] == ["ISETP", "BRA", "VIMNMX", "BRA", "STG", "IADD3", "BRA"]
    lazy = Ways(of_nested, (lambda _: -1,)).through(tiles)
    assert lazy.value(MULTIPLY_ADDS) == 0, "without a reason to, it does not multiply"


def test_a_loop_of_steps_within_a_loop_of_tiles():
    tile = model.tile(kernel(*NESTED))
    assert tile.form == "nested"
    assert [(part.times, names(part)) for part in tile.products] == [
        (4, ["BRA", "LDGSTS", "IGMMA", "IGMMA", "BRA"])
    ]
    assert names(tile.least) == ["ISETP", "BRA", "VIMNMX", "BRA", "STG", "IADD3", "BRA"]
    assert names(tile.most)[4:8] == ["MOV", "CALL", "STG", "STG"]


def test_one_loop_over_tiles_and_steps():
    tile = model.tile(kernel(*FUSED))
    assert tile.form == "fused"
    assert [(part.times, names(part)) for part in tile.products] == [
        (4, ["LDGSTS", "IGMMA", "IGMMA", "BRA", "IADD3", "BRA"])
    ]
    assert (tile.least.times, names(tile.least)) == (1, ["VIMNMX", "BRA", "STG"])
    assert names(tile.most) == ["VIMNMX", "BRA", "SHF", "STG", "STG"]


def test_steps_that_are_written_out_in_the_loop_of_tiles():
    step = [COPY, PRODUCT, PRODUCT]
    tile = model.tile(
        kernel("loop: S2R R0, SR_CTAID.X", *step, *step, *FUSED[4:9], "@P1 BRA {loop}", depth=64)
    )
    assert tile.form == "unrolled"
    assert [(part.times, names(part)) for part in tile.products] == [
        (1, ["S2R", *["LDGSTS", "IGMMA", "IGMMA"] * 2])
    ]
    assert names(tile.least) == ["VIMNMX", "BRA", "STG", "BRA"]
    assert names(tile.most) == ["VIMNMX", "BRA", "SHF", "STG", "STG", "BRA"]


def test_a_loop_of_four_steps_is_followed_by_one_of_those_that_are_left():
    lines = [
        "tiles: ISETP.GE.AND P1, PT, R2, R3, PT",
        f"four: {PRODUCT}", *[PRODUCT] * 7, "@P0 BRA {four}",
        f"one: {PRODUCT}", PRODUCT, "@P1 BRA {one}",
        "@P2 BRA {tiles}",
    ]  # fmt: skip
    assert [part.times for part in model.tile(kernel(*lines, depth=6 * 32)).products] == [1, 2]


def test_a_loop_of_a_stages_steps_stands_within_the_loop_of_stages():
    lines = [
        "tiles: NOP",
        f"stages: {COPY}",
        *NESTED[6:8],
        "@P0 BRA {full}",
        "@P1 BRA {stages}",
        "@P2 BRA {tiles}",
    ]
    tile = model.tile(kernel(*lines, depth=6 * 32, products=2))
    assert [(part.times, names(part)) for part in tile.products] == [
        (6, ["LDGSTS", "BRA"]),
        (12, ["IGMMA", "IGMMA", "BRA"]),
    ]


def test_a_tile_may_be_visited_once_for_each_block_of_columns():
    lines = ["blocks: LDC R1, c[0x0][0x28]", *NESTED[4:9], "@P5 BRA {blocks}"]
    tile = model.tile(kernel(*lines, name="patterns", depth=512, visits=4))
    assert (tile.products[0].times, tile.least.times) == (16, 4)


@pytest.mark.parametrize("depth", [32 * 3 + 16, 16])
def test_products_that_do_not_add_up_to_a_tile_are_an_error(depth):
    with pytest.raises(ValueError, match="does not add up"):
        model.tile(kernel(*FUSED, depth=depth))


def test_code_without_matrix_products_is_an_error():
    with pytest.raises(ValueError, match="no loop with matrix products"):
        model.tile(kernel("loop: IADD3 R2, R2, 0x1, RZ", "BRA {loop}"))


def test_clocks_are_instructions_times_warps_over_rates():
    lines = ["IMMA.16832.S8.S8 R4, R8.ROW, R10.COL, R4", "IADD3 R1, R2, R3, RZ", "SEL R1, R2, R3, P0"]
    lines += ["IMAD R1, R2, R3, R4", "FADD R1, R2, R3", "LDS.128 R4, [R2]", "SHFL.BFLY PT, R1, R2, 0x1, 0x1f"]
    lines += ["POPC R1, R2", "DADD R2, R4, R6", COPY]
    part = model.Part(tuple(parse.instructions(listing(*lines))), times=3)
    twelve = 3 * 4  # warps
    expected = {
        80: {
            "tensor": twelve * 4096 / 2048,
            "FMA": twelve * 2 / 2,
            "FP64": twelve,
            "L2": twelve * 512 * 108 / 5120,
        },
        90: {
            "tensor": twelve * 4096 / 4096 / 0.629,
            "FMA": twelve * 2 / 4,
            "FP64": twelve / 2,
            "L2": twelve * 512 * 132 / 4472,
        },
    }
    alike = {"ALU": twelve * 2 / 2, "IMAD": twelve / 2, "XU": twelve * 2, "issue": twelve * 10 / 4}
    alike["shared"] = twelve * (512 + 128 + 512) / 128
    for chip, of_chip in expected.items():
        assert model.clocks([part], 4, model.CHIPS[chip]) == pytest.approx(alike | of_chip)


def test_copies_that_run_ahead_of_a_tile_do_not_count():
    part = model.Part(tuple(parse.instructions(listing(COPY, COPY))), times=1)
    spent = model.clocks([part], 4, model.CHIPS[90], copied=1024)
    assert spent["shared"] == 1024 / 128
    assert spent["L2"] == pytest.approx(1024 * 132 / 4472)


def test_products_of_a_warp_group_are_as_fast_as_the_chip():
    part = model.Part(tuple(parse.instructions(listing(PRODUCT))), times=8)
    assert model.clocks([part], 4, model.CHIPS[90])["tensor"] == 8 * 64 * 128 * 32 / 4096


def test_the_share_of_u_counts_the_tiles_that_are_visited():
    for name, share in (("sweep", 0.25), ("dense_tiles", 0.25), ("patterns", 0.5)):
        found = model.Prediction(
            kernel(*FUSED, name=name, depth=512), model.tile(kernel(*FUSED)), model.CHIPS[90]
        )
        assert found.share(128 * 128 * 512 / 4096) == share, "half of bfloat16's clocks for the tile"


def test_the_bound_is_the_busiest_pipe_and_apart_the_sum_of_two():
    found = model.predict(kernel(*FUSED))
    spent = found.clocks()
    assert found.bound() == max(spent.items(), key=lambda item: item[1])
    assert spent["tensor"] == 128 * 128 * 128 / 4096
    copied = 2 * 128 * 128
    assert spent["L2"] == pytest.approx(copied * 132 / 4472)
    assert spent["shared"] == (copied + 8 * 4 * 1536) / 128
    assert found.apart() == pytest.approx(spent["L2"] + 3), "12 slots of the rest, 4 a clock"
    assert spent["issue"] == 4 * (4 * 6 + 3) / 4
    assert found.clocks(most=True)["issue"] == 4 * (4 * 6 + 5) / 4


def test_copies_ahead_of_the_first_step_are_not_read_twice():
    lines = [*NESTED[:4], COPY, COPY, *NESTED[4:]]
    apart = model.predict(kernel(*lines)).apart()
    assert apart == pytest.approx(2 * 128 * 128 * 132 / 4472 + 4 * 9 / 4), "and 9 slots of the rest"


def test_loads_take_the_place_of_copies_where_there_are_none():
    spent = model.predict(kernel("loop: LDG.E.128 R4, desc[UR6][R6.64]", *FUSED[1:])).clocks()
    assert spent["L2"] == pytest.approx(4 * 4 * 512 * 132 / 4472)


# Ours. What a tile multiplies is counted here from the names of the instructions alone.
CASES = [
    *(("triton", 512, "bfloat16"), ("triton", 80, "float32")),  # as test_compiled.py compiles them
    *(("cuda", 512, "bfloat16"), ("cuda", 128, "float32")),
]
CHIPS = ("sm_80", "sm_90a")
KERNELS = ("sweep", "dense_tiles", "patterns")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def printed_and_written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[dict[str, Any]]]:
    """What the command prints for a backend, D and dtype, and what it writes."""
    backend, dim, dtype = request.param
    path = tmp_path_factory.mktemp("sass") / "predictions.json"
    arguments = ("--backend", backend, "--dim", str(dim), "--dtype", dtype, "--json", str(path))
    printed = python("-m", "benchmarks.sass", *arguments, statuses=(0, 1))
    records = json.loads(path.read_text())["predictions"]
    if not records:
        pytest.skip(printed.splitlines()[-2])  # what is not installed, or was not built
    return printed, records


def _where(record: dict[str, Any]) -> str:
    return f"{record['kernel']}, {record['backend']}, {record['chip']}, {record['dtype']}, D={record['dim']}"


def _multiplied(record: dict[str, Any]) -> int:
    sizes = {"16832": 16 * 8 * 32, "16816": 16 * 8 * 16, "1688": 16 * 8 * 8}
    total = 0
    for name, part in record["parts"].items():
        for mnemonic in part["matrix"] if name != "rest, most" else []:
            shape = mnemonic.split(".")[1]
            of_a_warp = sizes[shape] if shape in sizes else math.prod(map(int, shape.split("x"))) // 4
            total += of_a_warp * part["times"] * record["warps"]
    return total


def _exact(record: dict[str, Any]) -> int:
    """Products that stand for one: float32 is three of less."""
    return 3 if record["dtype"] == "float32" and record["kernel"] != "sweep" else 1


@pytest.mark.slow
def test_every_kernel_is_found_for_every_chip(printed_and_written):
    printed, records = printed_and_written
    for chip in CHIPS:
        if f"built without {chip}" not in printed:
            assert {record["kernel"] for record in records if record["chip"] == chip} == set(KERNELS)


@pytest.mark.slow
def test_tiles_multiply_128_rows_by_128_columns_of_d(printed_and_written):
    for record in printed_and_written[1]:
        d, exact = record["dim"], _exact(record)
        of_d = _multiplied(record) / (128 * 128 * exact)
        assert d <= of_d < d + 128, _where(record)
        if record["kernel"] != "patterns":
            assert of_d == math.ceil(d / record["step"]) * record["step"], _where(record)
        elif d % 128 == 0:
            assert of_d == d, _where(record)


@pytest.mark.slow
def test_passes_of_a_loop_are_whole_steps(printed_and_written):
    for record in printed_and_written[1]:
        if record["kernel"] != "patterns":
            of_a_step = 128 * 128 * record["step"] * _exact(record)
            for name, part in record["parts"].items():
                if name.startswith("products"):
                    alone = record | {"parts": {name: part}}
                    assert _multiplied(alone) % of_a_step == 0, f"{_where(record)}, {name}"


@pytest.mark.slow
def test_every_instruction_is_known(printed_and_written):
    for record in printed_and_written[1]:
        for name, part in record["parts"].items():
            assert not part["unknown"], f"{_where(record)}, {name}"
            assert pipes.UNKNOWN not in part["instructions"]


@pytest.mark.slow
def test_no_prediction_is_below_what_the_matrix_units_need(printed_and_written):
    rates = {("sm_80", True): 2048, ("sm_80", False): 1024, ("sm_90a", True): 4096, ("sm_90a", False): 2048}
    for record in printed_and_written[1]:
        predicted = record["predicted"]
        fastest = rates[record["chip"], record["kernel"] == "sweep"]
        assert predicted["bound_clocks"] >= _multiplied(record) / fastest, _where(record)
        assert predicted["apart_clocks"] >= predicted["bound_clocks"] * (1 - 1e-9), _where(record)
        assert predicted["most_clocks"] >= predicted["bound_clocks"], _where(record)
        read = 2 * 128 * math.ceil(record["dim"] / record["step"]) * record["step"]
        read *= 1 if record["kernel"] == "sweep" else 4 if record["dtype"] == "float32" else 2
        if record["kernel"] != "patterns":
            l2_bytes = model.CHIPS[80 if record["chip"] == "sm_80" else 90].l2_bytes
            assert 1 <= predicted["clocks"]["L2"] * l2_bytes / read < 1.3, _where(record)


@pytest.mark.slow
def test_predictions_are_called_predictions_and_stand_in_no_readme(printed_and_written):
    printed, records = printed_and_written
    assert printed.startswith("Predictions from compiled code, not measurements\n")
    assert {record["what"] for record in records} == {"prediction"}
    shown = [line for line in printed.splitlines() if "clocks" in line]
    assert len(shown) == 2 * len(records)
    assert all(line.strip().startswith("predicted ") for line in shown)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in filter(None, map(str.strip, printed.splitlines())):
        assert line not in readme
    assert command.TITLE not in readme
    assert not re.search(r"benchmarks[./]sass|predicted clocks|predicted bound", readme)


def test_code_of_another_form_hides_no_other_prediction(capsys, monkeypatch):
    made = [kernel(*FUSED, depth=100), kernel(*FUSED)]
    monkeypatch.setattr(command.compiled, "kernels", lambda *_: made)
    assert command.main(["--backend", "triton", "--chip", "90"]) == 1
    printed = capsys.readouterr().out
    assert "sweep of triton, sm_90: each of 4 warps multiplies [131072] a pass of its loops" in printed
    assert "predicted bound: L2, 967 clocks a tile, 0.47 U" in printed


def test_without_compiled_code_it_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["--backend", "triton", "--chip", "90"]) == 1
    assert "triton, sm_90a: triton is not installed" in capsys.readouterr().out
