"""The base loss, a class of pytorch-metric-learning by its name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from .errors import UsageError


class LossError(UsageError):
    """A base loss cannot be made as it is asked for."""


def make(name: str, arguments: dict[str, Any], classes: int, embedding_size: int) -> nn.Module:
    """A base loss, called with embeddings (N, D) float32 and labels (N,) int64.

    Args:
        name: a class of `pytorch_metric_learning.losses`, as "ProxyAnchorLoss".
        arguments: what it is made with, beside `num_classes` and `embedding_size`, which it is given where it
            asks for them.
        classes: C, of training.
        embedding_size: D.

    Raises:
        LossError: there is no such class, or it refuses the arguments.
    """
    from pytorch_metric_learning import losses  # noqa: PLC0415  # an extra

    known = [x for x in dir(losses) if x.endswith("Loss") and not x.startswith("Base")]
    if name not in known:
        raise LossError(f"base_loss: got {name!r}, expected one of {', '.join(known)}")
    kind = getattr(losses, name)
    given = {"num_classes": classes, "embedding_size": embedding_size}
    asked = inspect.signature(kind).parameters
    try:
        return kind(**{k: v for k, v in given.items() if k in asked}, **arguments)
    except Exception as error:
        raise LossError(
            f"base_loss_arguments: {name} refuses {arguments} ({type(error).__name__}: {error})"
        ) from error
