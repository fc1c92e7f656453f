"""The loss of a batch that is spread over the ranks of a torch.distributed process group.

    loss = distributed_tcm_loss(emb, labels)    # this rank's rows; the pairs of all ranks' rows

The only part of the package that communicates. `header.py` has the ranks agree before anything large is sent,
`gather.py` and `ring.py` are the two ways through the pairs, `cost.py` chooses between them.
"""

from .loss import distributed_tcm_loss

__all__ = ["distributed_tcm_loss"]
