// The inner loops for AVX-512 with VNNI (Cascade Lake, Zen 4 and later). The target is set before anything is
// included, so all code of this file is compiled for it. kernels.h says why no other file shares that code.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt,bmi,bmi2,avx512vnni"))), \
    apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt,bmi,bmi2,avx512vnni")
#endif
#define TCM_SIMD_NAME simd_avx512_vnni
#define TCM_VNNI
#define TCM_VECTOR_BYTES 64
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
