"""`Calibration` as a function of numbers, arrays and tensors, and as a file that may be anything."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcm_kernels.evaluation.calibration import Calibration

PLATT = Calibration("platt", 0.1, slope=12.5, intercept=-4.0)
TEMPERATURE = Calibration("temperature", 0.5, slope=20.0, centre=0.3)
ISOTONIC = Calibration(
    "isotonic", 0.2, similarities=(-0.5, 0.0, 0.25, 0.75), probabilities=(0.0, 0.1, 0.1, 0.875)
)
LEVEL = Calibration("isotonic", 0.2, similarities=(0.5,), probabilities=(0.25,))
ALL = [PLATT, TEMPERATURE, ISOTONIC, LEVEL]
each = pytest.mark.parametrize("calibration", ALL, ids=["platt", "temperature", "isotonic", "one knot"])
DEVICES = ["meta", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]
GRID = np.linspace(-1.2, 1.2, 97)

floats = st.floats(-1e300, 1e300)
shares = st.floats(0.0, 1.0)


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    method = draw(st.sampled_from(["platt", "temperature", "isotonic"]))
    if method == "platt":
        return Calibration(method, draw(shares), slope=abs(draw(floats)), intercept=draw(floats))
    if method == "temperature":
        return Calibration(method, draw(shares), slope=abs(draw(floats)), centre=draw(floats))
    knots = sorted(draw(st.sets(floats.map(lambda x: round(x, 6)), min_size=1, max_size=6)))
    rising = sorted(draw(st.lists(shares, min_size=len(knots), max_size=len(knots))))
    return Calibration(method, draw(shares), similarities=tuple(knots), probabilities=tuple(rising))


def _wanted(calibration: Calibration, s: float) -> float:
    if calibration.method == "isotonic":
        return float(np.interp(s, calibration.similarities, calibration.probabilities))
    return 1 / (1 + math.exp(-calibration.slope * (s - calibration.centre) - calibration.intercept))


@each
def test_numbers_give_floats_and_arrays_give_arrays(calibration: Calibration) -> None:
    wanted = [_wanted(calibration, s) for s in GRID]
    numbers = [calibration(float(s)) for s in GRID]
    assert {type(x) for x in numbers} == {float}
    np.testing.assert_allclose(numbers, wanted, rtol=1e-14)
    arrays = {
        "float64": GRID,
        "read-only": np.frombuffer(GRID.tobytes()),
        "backwards twice": GRID[::-1].copy()[::-1],
        "big-endian": GRID.astype(">f8"),
        "strided": np.repeat(GRID, 2)[::2],
    }
    for name, array in arrays.items():
        got = calibration(array)
        assert type(got) is np.ndarray
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, wanted, rtol=1e-14, err_msg=name)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_tensors_give_tensors_of_their_dtype(calibration: Calibration, dtype: torch.dtype) -> None:
    s = torch.from_numpy(GRID).to(dtype)
    got = calibration(s)
    assert got.dtype == dtype
    assert got.device == s.device
    wanted = torch.tensor([_wanted(calibration, x) for x in s.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, wanted.to(dtype), rtol=1e-14 if dtype == torch.float64 else 0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@each
def test_tensors_stay_on_their_device(calibration: Calibration, device: str) -> None:
    got = calibration(torch.zeros(3, 2, device=device))
    assert (got.device.type, got.shape) == (device, (3, 2))


@each
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (4, 5, 6)], ids=str)
def test_any_shape_comes_back(calibration: Calibration, shape: tuple[int, ...]) -> None:
    s = np.random.default_rng(0).uniform(-1, 1, shape)
    assert calibration(s).shape == shape
    turned = torch.from_numpy(s).permute(tuple(reversed(range(len(shape)))))
    np.testing.assert_array_equal(calibration(turned).numpy(), calibration(s).T)


@each
def test_other_numbers_are_numbers(calibration: Calibration) -> None:
    for s in (1, np.float32(0.5), np.float64(0.5), np.int64(0)):
        assert calibration(s) == calibration(float(s))
        assert type(calibration(s)) is float
    assert calibration(np.array([0, 1])).tolist() == [calibration(0.0), calibration(1.0)]


@each
def test_nan_stays_nan_and_infinity_is_an_end(calibration: Calibration) -> None:
    assert math.isnan(calibration(math.nan))
    assert np.isnan(calibration(np.array([0.1, math.nan]))).tolist() == [False, True]
    assert calibration(torch.tensor([math.nan, 0.1])).isnan().tolist() == [True, False]
    low, high = calibration(-math.inf), calibration(math.inf)
    if calibration.method == "isotonic":
        assert (low, high) == (calibration.probabilities[0], calibration.probabilities[-1])
    else:
        assert (low, high) == (0.0, 1.0)
    assert Calibration("platt", 0.5, intercept=1.0)(math.inf) == pytest.approx(1 / (1 + math.exp(-1)))


@each
def test_gradients_pass(calibration: Calibration) -> None:
    s = torch.tensor([-0.9, -0.2, 0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(calibration, s)


@pytest.mark.parametrize(
    "similarity",
    [None, "0.5", [0.5], True, 1j, np.array([True]), np.array(["a"]), np.array([1j]), torch.tensor([1])],
    ids=repr,
)
def test_what_is_no_similarity_is_refused(similarity: Any) -> None:
    with pytest.raises(TypeError, match=r"similarity: got .*, expected .*(number|floats)"):
        PLATT(similarity)


@given(calibrations(), st.lists(st.one_of(st.floats(allow_nan=False), st.floats(-1, 1)), min_size=2))
def test_probabilities_never_fall(calibration: Calibration, similarities: list[float]) -> None:
    s = np.sort([*similarities, *calibration.similarities])
    p = calibration(s)
    assert (p >= 0).all()
    assert (p <= 1).all()
    # Between knots to the bit; two ways to compute one exponential may differ in the last.
    assert (np.diff(p) >= (0 if calibration.method == "isotonic" else -2e-16)).all()


def test_between_knots_rounding_does_not_lift_a_probability_over_the_next() -> None:
    ulp = 2.0**-53
    for low, high in [(1.5 * ulp, 0.75 + ulp), *np.sort(np.random.default_rng(0).random((50, 2))).tolist()]:
        line = Calibration("isotonic", 0.5, similarities=(-0.9, 0.9), probabilities=(low, high))
        assert low == line(-0.9) <= line(0.0) <= line(0.9) <= high
        assert line(0.9) == pytest.approx(high, rel=1e-15)


def test_knots_may_be_as_close_as_floats_are() -> None:
    step = Calibration("isotonic", 0.5, similarities=(0.0, 1e-300), probabilities=(0.5, 0.5))
    assert step(np.array([-1e300, 0.0, 1e-300, 1.0, 1e300])).tolist() == [0.5] * 5


@given(calibrations())
def test_a_saved_calibration_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, calibration: Calibration
) -> None:
    path = tmp_path_factory.getbasetemp() / "calibration.json"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded == calibration
    assert repr(loaded) == repr(calibration)  # which tells -0.0 from 0.0
    again = path.with_name("again.json")
    loaded.save(str(again))
    assert again.read_bytes() == path.read_bytes()


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calibration.json"
    PLATT.save(path)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        ISOTONIC.save(path)
    assert Calibration.load(path) == PLATT
    assert [x.name for x in tmp_path.iterdir()] == ["calibration.json"]


def _content(calibration: Calibration, path: Path) -> dict[str, Any]:
    calibration.save(path)
    return json.loads(path.read_text())


BROKEN: list[tuple[str, Calibration, dict[str, Any], str]] = [
    (
        "another format",
        PLATT,
        {"format": "tcm_kernels calibration 2"},
        "format is 'tcm_kernels calibration 1'",
    ),
    ("another method", PLATT, {"method": "beta"}, "method: got 'beta'"),
    ("a method that is no text", PLATT, {"method": ["platt"]}, "method: got"),
    ("fields of another method", PLATT, {"method": "temperature"}, "got the fields .* expected .*centre"),
    ("one field more", PLATT, {"centre": 0.0}, "got the fields"),
    ("no prior", PLATT, {"prior": None}, "prior: got None"),
    ("a prior above 1", PLATT, {"prior": 1.5}, r"prior: got 1.5, expected a share in \[0, 1\]"),
    ("text for a number", PLATT, {"slope": "12"}, "slope: got '12', expected a finite number"),
    ("true for a number", PLATT, {"slope": True}, "slope: got True"),
    ("a list for a number", PLATT, {"slope": [1.0]}, "slope: got"),
    ("a slope that is infinite", PLATT, {"slope": math.inf}, "slope: got inf"),
    ("a slope that falls", TEMPERATURE, {"slope": -1.0}, "slope: got -1.0, expected at least 0"),
    ("NaN", PLATT, {"intercept": math.nan}, "intercept: got nan"),
    ("a number beyond floats", PLATT, {"intercept": 10**400}, "intercept|too large"),
    ("a number for knots", ISOTONIC, {"similarities": 0.5}, "similarities: got 0.5, expected a list"),
    ("knots that are text", ISOTONIC, {"similarities": ["a", "b", "c", "d"]}, "similarities: got 'a'"),
    ("no knots", ISOTONIC, {"similarities": [], "probabilities": []}, "got 0 and 0 knots"),
    ("one knot less", ISOTONIC, {"similarities": [0, 0.5, 1]}, "got 3 and 4 knots"),
    ("knots that stand", ISOTONIC, {"similarities": [0, 0.5, 0.5, 1]}, "knots that do not ascend"),
    ("knots with NaN", ISOTONIC, {"similarities": [0, math.nan, 0.5, 1]}, "similarities: got nan"),
    ("knots too far apart", ISOTONIC, {"similarities": [-1.7e308, 1e308, 1.1e308, 1.2e308]}, "do not ascend"),
    ("knots too close", ISOTONIC, {"similarities": [0, 5e-324, 0.5, 1]}, "do not ascend"),
    ("probabilities that fall", ISOTONIC, {"probabilities": [0, 0.2, 0.1, 1]}, "fall, or are outside"),
    ("a probability below 0", ISOTONIC, {"probabilities": [-0.1, 0, 0.1, 1]}, "fall, or are outside"),
    ("a probability above 1", ISOTONIC, {"probabilities": [0, 0, 0.1, 1.1]}, "fall, or are outside"),
]


@pytest.mark.parametrize(
    ("calibration", "changes", "why"), [x[1:] for x in BROKEN], ids=[x[0] for x in BROKEN]
)
def test_a_file_with_a_wrong_value_is_refused(
    calibration: Calibration, changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(_content(calibration, path) | changes))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a file of a calibration: .*({why})"):
        Calibration.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b"1" * 5000,
        b"[" * 100_000,
        b"PK\x03\x04",
        b'"text"',
    ],
    ids=lambda x: repr(x[:8]),
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.json is not a file of a calibration: "):
        Calibration.load(path)


@each
def test_a_file_without_one_of_its_fields_is_refused(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "edited.json"
    content = _content(calibration, path)
    for name in content:
        path.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        with pytest.raises(ValueError, match=r"edited\.json is not a file of a calibration: .*expected"):
            Calibration.load(path)


def test_half_a_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    ISOTONIC.save(path)
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"half\.json is not a file of a calibration"):
            Calibration.load(path)


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(_content(PLATT, path) | {"slope": 3, "prior": 1}))
    assert repr(Calibration.load(path)) == repr(Calibration("platt", 1.0, slope=3.0, intercept=-4.0))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "none.json")


def test_a_calibration_is_used_without_sklearn(tmp_path: Path) -> None:
    ISOTONIC.save(tmp_path / "c.json")
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['matplotlib'] = None\n"
        "from tcm_kernels.evaluation.calibration import Calibration\n"
        "print(Calibration.load(sys.argv[1])(0.5))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "c.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.strip(), done.stderr) == (repr(ISOTONIC(0.5)), "")
