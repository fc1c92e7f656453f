"""The backends, one module (or folder) each, all with the functions of `contract.Backend`.

A backend imports no other backend and nothing above this folder; what several of them need lies beside
them: contract, order, residual, numerics, and `gpu/` for those on a GPU. `tcm_kernels.dispatch` lists them.
"""
