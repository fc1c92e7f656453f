// May tiles be screened by int8 products on this machine?
#pragma once

namespace tcm::cpu {

// True where the processor has int8 units and torch's int8 product is exact on full-range rows. Without
// VNNI or AMX, or with those switched off (ONEDNN_MAX_CPU_ISA), oneDNN adds pairs of products in 16 bits and
// saturates, so exactness is tried out once, at first use, and not derived from a list of processors.
// TCM_KERNELS_CPU_SCREENING=full answers no; =int8 asks for nothing but exactness.
bool int8_products();

}  // namespace tcm::cpu
