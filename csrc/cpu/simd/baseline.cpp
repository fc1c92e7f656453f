// The inner loops for every processor of the architecture the package is compiled for.
#define TCM_SIMD_NAME simd_baseline
#define TCM_VECTOR_BYTES 16
#include "kernels.h"
