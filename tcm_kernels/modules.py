"""The loss as a module, called as pytorch-metric-learning's losses are."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from . import dispatch
from .distributed import distributed_tcm_loss
from .functional import fused_tcm_loss
from .stats import PairStats
from .validation import check_lambda, check_margin

_SETTINGS: tuple[str, ...] = ("margin_plus", "margin_minus", "lambda_plus", "lambda_minus", "backend")
_ACROSS_DEVICES = ("mode", "gradient_reduction", "equal_batches", "ref_sharded")


class ThresholdConsistentMarginLoss(nn.Module):
    """Threshold-Consistent Margin loss; see `fused_tcm_loss` for what it computes.

    Settings are keyword-only: pytorch-metric-learning's class of this name orders them differently.

    Args:
        margin_plus: positives with similarity <= margin_plus are pulled together; in [-1, 1], a float,
            or a 0-dim tensor without gradient (for a schedule: assign to `loss.margin_plus`, or write
            into the tensor).
        margin_minus: negatives with similarity >= margin_minus are pushed apart; likewise.
        lambda_plus: weight of the positive term, at least 0.
        lambda_minus: weight of the negative term, at least 0.
        backend: "auto" or a name from `tcm_kernels.available_backends()`.
        gather_across_devices: take the pairs of the batch that is spread over the ranks of a
            torch.distributed process group, by `distributed_tcm_loss`; every rank calls the module with its
            own rows. The arguments below are for that alone.
        group: the process group; None for the default one.
        mode: "auto", "gather", "ring" or "rows".
        gradient_reduction: "mean" for parameters' gradients that DDP or FSDP averages over ranks, "sum"
            where they are summed.
        equal_batches: True promises the same sizes on all ranks, and saves a message.
        ref_sharded: whether each rank has its own part of a reference set, or the same whole one.

    Attributes:
        last_stats: detached `PairStats` of the latest forward, for logging; None before the first.
    """

    def __init__(
        self,
        *,
        margin_plus: float | Tensor = 0.9,
        margin_minus: float | Tensor = 0.5,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        backend: str = "auto",
        gather_across_devices: bool = False,
        group: Any = None,
        mode: str = "auto",
        gradient_reduction: str = "mean",
        equal_batches: bool = False,
        ref_sharded: bool = True,
    ) -> None:
        super().__init__()
        check_margin("margin_plus", margin_plus)
        check_margin("margin_minus", margin_minus)
        check_lambda("lambda_plus", lambda_plus)
        check_lambda("lambda_minus", lambda_minus)
        dispatch.check_name(backend)
        self.margin_plus = margin_plus
        self.margin_minus = margin_minus
        self.lambda_plus = lambda_plus
        self.lambda_minus = lambda_minus
        self.backend = backend
        self.gather_across_devices = gather_across_devices
        self.group = group
        self.mode = mode
        self.gradient_reduction = gradient_reduction
        self.equal_batches = equal_batches
        self.ref_sharded = ref_sharded
        self.last_stats: PairStats | None = None

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            embeddings: (N, D) floating point, of any length.
            labels: (N,) integers; not needed with an indices_tuple.
            indices_tuple: pairs that a miner has chosen, the `pairs` of `fused_tcm_loss`; None for all.
            ref_emb: (M, D) reference set; pairs are then those between the batch and the set.
            ref_labels: (M,) integers.

        Returns:
            0-dim float32 (float64 for float64 embeddings). Raises as `fused_tcm_loss` does, and
            ValueError for an indices_tuple with `gather_across_devices`.
        """
        given = (embeddings, cast(Tensor, labels), ref_emb, ref_labels)  # the loss refuses None for labels
        settings: dict[str, Any] = {name: getattr(self, name) for name in _SETTINGS}
        if self.gather_across_devices:
            if indices_tuple is not None:
                raise ValueError(
                    f"indices_tuple: got {type(indices_tuple).__name__} with gather_across_devices, expected "
                    "None: a miner has seen the rows of its own rank alone"
                )
            settings |= {name: getattr(self, name) for name in _ACROSS_DEVICES}
            loss, stats = distributed_tcm_loss(*given, group=self.group, return_stats=True, **settings)
        else:
            loss, stats = fused_tcm_loss(*given, pairs=indices_tuple, return_stats=True, **settings)
        self.last_stats = stats.detach()
        return loss

    def extra_repr(self) -> str:
        """The settings, as shown by print(module)."""
        names = _SETTINGS
        if self.gather_across_devices:
            names += ("gather_across_devices", *_ACROSS_DEVICES)
        return ", ".join(f"{name}={_shown(getattr(self, name))}" for name in names)


def _shown(value: Any) -> str:
    """A setting for `extra_repr`; a tensor's value is not read, because that would wait for its device."""
    return f"<0-dim tensor on {value.device}>" if isinstance(value, Tensor) else repr(value)
