"""The network that embeds images, by name: `small`, `timm:<model>`, or `<module>:<factory>`.

    small             a few convolutions, for tests and trial runs; says nothing about the loss
    timm:resnet50     a model of timm, which is optional, without its classifier
    package.file:make a function or class of yours: called as make(embedding_size=...) where it has a
                      parameter of that name, else as make(); returns a module, (N, 3, H, W) -> (N, D)

A linear layer follows where D is not the embedding size.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UsageError


class BackboneError(UsageError):
    """A backbone cannot be had; the message names it, says what failed, and the cure."""


def make(name: str, embedding_size: int, image_size: int, *, pretrained: bool) -> nn.Module:
    """A network (N, 3, image_size, image_size) float32 -> (N, embedding_size), on the CPU.

    Initialised from torch's own random state. `pretrained` is passed to timm and means nothing to others.

    Raises:
        BackboneError: there is no such backbone, it cannot be made, or gives anything but (N, D) floats.
    """
    kind, _, what = name.partition(":")
    if name == "small":
        backbone: Any = small(embedding_size)
    elif kind == "timm" and what:
        backbone = _of_timm(name, what, pretrained)
    elif kind and what:
        backbone = _of_user(name, kind, what, embedding_size)
    else:
        raise BackboneError(f"backbone: got {name!r}, expected small, timm:<model> or <module>:<factory>")
    if not isinstance(backbone, nn.Module):
        raise BackboneError(f"backbone {name}: gave a {type(backbone).__name__}, expected a torch.nn.Module")
    width = _width(name, backbone, image_size)
    return backbone if width == embedding_size else nn.Sequential(backbone, nn.Linear(width, embedding_size))


def small(embedding_size: int) -> nn.Module:
    """Four convolutions with batch normalisation, the mean over the image, a linear layer; 100 kB."""
    layers: list[nn.Module] = []
    channels = (3, 16, 32, 32, 64)
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, embedding_size))


def _of_timm(name: str, model: str, pretrained: bool) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:  # a torchvision of another torch fails with RuntimeError, others may differ
        torchvision = "torchvision" in str(error)
        cure = (
            "timm imports torchvision, which has to be made for this torch "
            f"({torch.__version__}): install the one of the same release, from the index that torch came from"
            if torchvision
            else "pip install timm"
        )
        raise BackboneError(
            f"backbone {name}: timm does not import ({type(error).__name__}: {error}); {cure}; "
            "or use <module>:<factory>"
        ) from error
    try:
        return timm.create_model(model, pretrained=pretrained, num_classes=0)
    except Exception as error:  # an unknown model, or weights that cannot be fetched
        hint = "; set pretrained = false to go without weights" if pretrained else ""
        raise BackboneError(
            f"backbone {name}: timm.create_model failed ({type(error).__name__}: {error}){hint}"
        ) from error


def _of_user(name: str, module: str, factory: str, embedding_size: int) -> Any:
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise BackboneError(f"backbone {name}: {error}; expected <module>:<factory> to import") from error
    try:
        takes_size = "embedding_size" in inspect.signature(found).parameters
    except (TypeError, ValueError):  # not callable, or written in C without a signature
        takes_size = False
    try:
        return found(embedding_size=embedding_size) if takes_size else found()
    except Exception as error:
        raise BackboneError(f"backbone {name}: making it failed ({type(error).__name__}: {error})") from error


def _width(name: str, backbone: nn.Module, image_size: int) -> int:
    """How long the backbone's outputs are, found by showing it two black images."""
    backbone.eval()  # leaves running statistics as they are
    try:
        with torch.no_grad():
            found = backbone(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:
        raise BackboneError(
            f"backbone {name}: failed on images of {image_size} × {image_size} "
            f"({type(error).__name__}: {error})"
        ) from error
    finally:
        backbone.train()
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2 or not found.is_floating_point():
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BackboneError(f"backbone {name}: gave {shape} for 2 images, expected floats of shape (2, D)")
    return found.shape[1]
