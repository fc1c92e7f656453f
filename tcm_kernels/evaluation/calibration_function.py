"""A fitted calibration: a function from similarity to probability that is kept in a JSON file.

Made in one place, by `fit_calibration`, and used in others, for years perhaps and without scikit-learn: so
everything in it is checked whenever one is made, from a file that someone edited by hand too.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..files import write_atomically
from .checks import is_number
from .curves import Rates

Method: TypeAlias = Literal["platt", "isotonic", "temperature"]

_FORMAT = "tcm_kernels calibration 1"
_FIELDS: dict[str, tuple[str, ...]] = {
    "platt": ("slope", "intercept"),
    "isotonic": ("similarities", "probabilities"),
    "temperature": ("slope", "centre"),
}
_KNOTS = _FIELDS["isotonic"]
_LARGEST = sys.float_info.max


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A function from similarity to probability that never falls; `fit_calibration` and `load` make one.

    For "platt" and "temperature" it is sigmoid(slope · (s - centre) + intercept); for "isotonic" it runs
    straight from knot to knot and is level before the first and after the last.

    Attributes:
        method: "platt" (its centre is 0), "isotonic" or "temperature" (slope = 1 / T, its intercept is 0).
        prior: share of same-class pairs among those that it is meant for.
        slope: at least 0; 0 where similarity tells nothing.
        centre: a similarity.
        intercept: log odds at the centre.
        similarities: K ascending knots of "isotonic".
        probabilities: K probabilities there, which do not fall.

    Raises:
        ValueError: numbers that are not such a function; the message names them.
    """

    method: Method
    prior: float
    slope: float = 0.0
    centre: float = 0.0
    intercept: float = 0.0
    similarities: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in _FIELDS:
            raise ValueError(f"method: got {self.method!r}, expected one of {', '.join(_FIELDS)}")
        for name in ("prior", "slope", "centre", "intercept"):
            _check_finite(name, getattr(self, name))
        for name in _KNOTS:
            for knot in getattr(self, name):
                _check_finite(name, knot)
        if not 0.0 <= self.prior <= 1.0:
            raise ValueError(f"prior: got {self.prior!r}, expected a share in [0, 1]")
        if self.slope < 0.0:
            raise ValueError(f"slope: got {self.slope!r}, expected at least 0: probabilities may not fall")
        count, other = len(self.similarities), len(self.probabilities)
        if count != other or (count > 0) != (self.method == "isotonic"):
            raise ValueError(
                f"similarities, probabilities: got {count} and {other} knots, expected as many of either: "
                "at least one for isotonic, none for others"
            )
        with np.errstate(over="ignore"):
            steps = np.diff(self.similarities)
        if not ((steps >= sys.float_info.min) & (steps < math.inf)).all():  # what can be divided by
            raise ValueError(
                "similarities: got knots that do not ascend, or by steps that floats cannot divide by"
            )
        if (np.diff(self.probabilities, prepend=0.0, append=1.0) < 0).any():
            raise ValueError("probabilities: got knots that fall, or are outside [0, 1]")

    @overload
    def __call__(self, similarity: float) -> float: ...

    @overload
    def __call__(self, similarity: npt.NDArray[Any]) -> Rates: ...

    @overload
    def __call__(self, similarity: Tensor) -> Tensor: ...

    def __call__(self, similarity: float | npt.NDArray[Any] | Tensor) -> float | Rates | Tensor:
        """The probability that pairs of these similarities are of one class.

        Args:
            similarity: cosine similarities: a number, an array of numbers or a tensor of floats. Any shape.

        Returns:
            Probabilities, computed in float64: a float; a float64 array; or a tensor of the same device and
            dtype, through which gradients pass. NaN where the similarity is NaN.

        Raises:
            TypeError: it is something else.
        """
        if isinstance(similarity, Tensor):
            if not similarity.is_floating_point():
                raise TypeError(f"similarity: got a tensor of {similarity.dtype}, expected one of floats")
            return self._probability(similarity.to(torch.float64)).to(similarity.dtype)
        if isinstance(similarity, np.ndarray):
            if similarity.dtype.kind not in "fiu":
                raise TypeError(f"similarity: got an array of {similarity.dtype}, expected one of numbers")
            # A copy, as torch takes neither arrays that are read-only nor negative strides.
            copied = torch.from_numpy(np.array(similarity, np.float64, order="C"))
            return cast(Rates, self._probability(copied).numpy())
        if not is_number(similarity):
            kind = type(similarity).__name__
            raise TypeError(f"similarity: got {kind}, expected a number, a numpy array or a torch.Tensor")
        return float(self._probability(torch.tensor(float(similarity), dtype=torch.float64)))

    def _probability(self, s: Tensor) -> Tensor:
        s = s.clamp(-_LARGEST, _LARGEST)  # infinity times a slope of 0 would be NaN
        if self.method != "isotonic":
            return torch.sigmoid(self.slope * (s - self.centre) + self.intercept)
        knots = s.new_tensor((self.similarities, self.probabilities))
        s = s.clamp(self.similarities[0], self.similarities[-1])
        right = torch.searchsorted(knots[0], s.contiguous()).clamp(max=knots.shape[1] - 1)
        left = (right - 1).clamp(min=0)
        (begin, low), (end, high) = knots[:, left], knots[:, right]
        part = (s - begin) / torch.where(right > left, end - begin, 1.0)
        return torch.minimum(low + part * (high - low), high)  # rounding must not lift it over the knot

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all; `load` gives every number back to the bit."""
        content = {"format": _FORMAT, "method": self.method, "prior": self.prior}
        content |= {name: getattr(self, name) for name in _FIELDS[self.method]}
        write_atomically(Path(path), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote; ValueError for any other file, OSError where none can be read."""
        try:
            content = json.loads(Path(path).read_bytes())
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                raise ValueError(f"expected a JSON object whose format is {_FORMAT!r}")
            if not isinstance(content.get("method"), str) or content["method"] not in _FIELDS:
                raise ValueError(f"method: got {content.get('method')!r}, expected {' or '.join(_FIELDS)}")
            numbers = ("prior", *_FIELDS[content["method"]])
            expected = ("format", "method", *numbers)
            if set(content) != set(expected):
                raise ValueError(f"got the fields {', '.join(content)}, expected {', '.join(expected)}")
            return cls(content["method"], **{name: _as_read(name, content[name]) for name in numbers})
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is not a file of a calibration: {error}") from error


def _as_read(name: str, value: object) -> Any:
    """A number of a JSON file as a float, for it may stand there as 1; a list of knots as a tuple."""
    if name not in _KNOTS:
        return _check_finite(name, value)
    if not isinstance(value, list):
        raise ValueError(f"{name}: got {value!r}, expected a list of numbers")
    return tuple(_check_finite(name, x) for x in value)


def _check_finite(name: str, x: Any) -> float:
    if not is_number(x) or not math.isfinite(x):
        raise ValueError(f"{name}: got {x!r}, expected a finite number")
    return float(x)
