"""The backends, one module (or folder) each, all with the functions of `contract.Backend`.

A backend imports no other backend and nothing above this folder. Several backends share contract, order,
residual and numerics; the two on a GPU also share `gpu/`. `tcm_kernels.dispatch` lists the backends.
"""
