"""The commands of evaluation; `tcm_kernels.cli` wires them up."""
