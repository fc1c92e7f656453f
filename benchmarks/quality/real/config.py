"""Configurations: one TOML file a data set, in which nothing has a default that the reader does not see.

    data_set = "cub"
    [paper]   what the TCM paper sets: margins and weight
    [ours]    everything else, which is our choice

Every key has to be there, and no other: a misspelt key would otherwise train with another value than its
author believes.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .data_sets import SOURCES
from .errors import UsageError
from .images import Shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parent / "configs"
OPTIMIZERS = ("Adam", "AdamW")
SCHEDULES = ("constant", "cosine")


class ConfigError(UsageError):
    """A configuration cannot be used; the message names the file, the key, and what is accepted."""


class _Rule(NamedTuple):
    accepted: str
    is_right: Callable[[Any], bool]


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _number(least: float, most: float = math.inf) -> _Rule:
    end = "" if most == math.inf else f", at most {most:g}"
    return _Rule(f"a number, at least {least:g}{end}", lambda x: _is_number(x) and least <= x <= most)


def _whole(least: int) -> _Rule:
    return _Rule(f"an integer, at least {least}", lambda x: _is_whole(x) and x >= least)


def _one_of(names: tuple[str, ...]) -> _Rule:
    return _Rule("one of " + ", ".join(names), lambda x: isinstance(x, str) and x in names)


def _numbers(count: int, least: float, most: float) -> _Rule:
    return _Rule(
        f"{count} numbers, above {least:g}, at most {most:g}",
        lambda x: (
            isinstance(x, list) and len(x) == count and all(_is_number(y) and least < y <= most for y in x)
        ),
    )


_POSITIVE = _Rule("a number above 0", lambda x: _is_number(x) and x > 0)
_TEXT = _Rule("text", lambda x: isinstance(x, str) and x != "")
_YES_NO = _Rule("true or false", lambda x: isinstance(x, bool))
_TABLE = _Rule("a table", lambda x: isinstance(x, dict))
_SCALE = _Rule(
    "two numbers, least and most, above 0, at most 1",
    lambda x: _numbers(2, 0, 1).is_right(x) and x[0] <= x[1],
)

_RULES: dict[str, dict[str, _Rule]] = {
    "paper": {
        "margin_plus": _number(-1, 1),
        "margin_minus": _number(-1, 1),
        "tcm_weight": _number(0),
    },
    "ours": {
        "backbone": _TEXT,
        "pretrained": _YES_NO,
        "embedding_size": _whole(1),
        "image_size": _whole(1),
        "resize": _whole(1),
        "crop_scale": _SCALE,
        "mean": _numbers(3, -1, 1),
        "std": _numbers(3, 0, 1),
        "classes_per_batch": _whole(2),
        "images_per_class": _whole(2),
        "steps": _whole(1),
        "optimizer": _one_of(OPTIMIZERS),
        "schedule": _one_of(SCHEDULES),
        "learning_rate": _POSITIVE,
        "loss_learning_rate": _POSITIVE,
        "weight_decay": _number(0),
        "base_loss": _TEXT,
        "base_loss_arguments": _TABLE,
    },
}
_DATA_SET = _one_of(tuple(SOURCES))


@dataclasses.dataclass(frozen=True)
class Paper:
    """What the TCM paper sets (Zhang et al., ICLR 2024, arXiv 2307.04047); see `fused_tcm_loss`.

    Attributes:
        margin_plus: m+, in [-1, 1].
        margin_minus: m-, in [-1, 1].
        tcm_weight: λ+ and λ-, at least 0.
    """

    margin_plus: float
    margin_minus: float
    tcm_weight: float


@dataclasses.dataclass(frozen=True)
class Ours:
    """What is our choice; each key of [ours], of the type that its rule accepts."""

    backbone: str
    pretrained: bool
    embedding_size: int
    image_size: int
    resize: int
    crop_scale: list[float]
    mean: list[float]
    std: list[float]
    classes_per_batch: int
    images_per_class: int
    steps: int
    optimizer: str
    schedule: str
    learning_rate: float
    loss_learning_rate: float
    weight_decay: float
    base_loss: str
    base_loss_arguments: dict[str, Any]

    @property
    def shape(self) -> Shape:
        """How images become tensors."""
        least, most = self.crop_scale
        mean, std = ((r, g, b) for r, g, b in (self.mean, self.std))
        return Shape(self.image_size, self.resize, (least, most), mean, std)

    @property
    def batch_size(self) -> int:
        """Images a step, on each rank."""
        return self.classes_per_batch * self.images_per_class


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration: the name of the data set, the paper's settings and ours."""

    data_set: str
    paper: Paper
    ours: Ours

    def with_ours(self, **changes: Any) -> Config:
        """The same with other settings of ours, those that are not None."""
        known = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, ours=dataclasses.replace(self.ours, **known))


def path_of(name: str) -> Path:
    """The file that is meant: a path, or the name of one in `configs`, as "cub".

    Raises:
        ConfigError: there is neither.
    """
    for path in (Path(name), FOLDER / f"{name}.toml"):
        if path.is_file():
            return path
    ready = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
    raise ConfigError(f"{name}: no such file, and not one of {ready}")


def read(path: Path) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: it is not TOML, a key is unknown, missing or of a wrong type or value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from None
    _check_keys(path, "", content, ("data_set", *_RULES))
    _check(path, "data_set", content["data_set"], _DATA_SET)
    for section, rules in _RULES.items():
        _check(path, f"[{section}]", content[section], _TABLE)
        _check_keys(path, f"[{section}] ", content[section], tuple(rules))
        for key, rule in rules.items():
            _check(path, f"[{section}] {key}", content[section][key], rule)
    ours = Ours(**content["ours"])
    if ours.resize < ours.image_size:
        raise ConfigError(
            f"{path}: [ours] resize: got {ours.resize}, expected at least image_size, {ours.image_size}"
        )
    return Config(content["data_set"], Paper(**content["paper"]), ours)


def _check_keys(path: Path, where: str, found: dict[str, Any], accepted: tuple[str, ...]) -> None:
    for key in found:
        if key not in accepted:
            raise ConfigError(f"{path}: {where}{key}: unknown key, accepted are {', '.join(accepted)}")
    for key in accepted:
        if key not in found:
            raise ConfigError(f"{path}: {where}{key}: missing")


def _check(path: Path, name: str, value: Any, rule: _Rule) -> None:
    if not rule.is_right(value):
        raise ConfigError(f"{path}: {name}: got {value!r}, expected {rule.accepted}")
