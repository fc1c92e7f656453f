// The inner loops for AVX2 (Haswell, Zen and later). The target is set before anything is
// included, so all code of this file is compiled for it. kernels.h says why no other file shares that code.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt,bmi,bmi2"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma,popcnt,bmi,bmi2")
#endif
#define TCM_SIMD_NAME simd_avx2
#define TCM_VECTOR_BYTES 32
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
