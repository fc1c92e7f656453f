"""The backends, one module (or folder) each, all with the same few functions.

    why_not_here()                     None where the backend can run on this machine, else the reason
                                       and the cure, as one sentence
    why_not(device_type, dtype)        the same for one kind of input
    residual_bytes(emb, ref, need_grad_emb, need_grad_ref)
                                       how much the forward leaves for the backward; follows from shapes
    pair_sums(...), pair_sums_backward(...)
                                       the two ops, with the arguments of `tcm_kernels.ops`

`dispatch.Backend` has their types, and `dispatch` lists the backends. A backend imports no other one
and nothing above this folder; what several of them need lies beside them in `shared.py`.
"""
