"""Threshold-Consistent Margin loss over all pairs of a batch, without the similarity matrix.

    loss = tcm_kernels.fused_tcm_loss(emb, labels)
    loss.backward()

`python -m tcm_kernels doctor` shows what runs on this machine.
"""

from ._version import __version__
from .dispatch import available_backends
from .functional import fused_tcm_loss
from .modules import ThresholdConsistentMarginLoss
from .stats import PairStats

__all__ = [
    "PairStats",
    "ThresholdConsistentMarginLoss",
    "__version__",
    "available_backends",
    "fused_tcm_loss",
]
