#include "simd.h"

#include <cstdlib>
#include <cstring>

namespace tcm::cpu {
namespace {

enum class Isa { baseline, avx2, avx512, avx512_vnni };
constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_vnni"};

Isa widest() {
#ifdef TCM_X86_SIMD
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return __builtin_cpu_supports("avx512vnni") ? Isa::avx512_vnni : Isa::avx512;
  }
  if (avx2) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen() {
  static const Isa isa = [] {
    const Isa limit = widest();
    const char* asked = std::getenv("TCM_KERNELS_CPU_ISA");
    for (int k = 0; asked != nullptr && k < int(limit); ++k) {
      if (std::strcmp(asked, kNames[k]) == 0) return Isa(k);
    }
    return limit;
  }();
  return isa;
}

}  // namespace

const char* simd_name() { return kNames[int(chosen())]; }

template <>
const Simd<float>& simd<float>() {
#ifdef TCM_X86_SIMD
  if (chosen() == Isa::avx512_vnni) return simd_avx512_vnni_f32;
  if (chosen() == Isa::avx512) return simd_avx512_f32;
  if (chosen() == Isa::avx2) return simd_avx2_f32;
#endif
  return simd_baseline_f32;
}

template <>
const Simd<double>& simd<double>() {
#ifdef TCM_X86_SIMD
  if (chosen() == Isa::avx512_vnni) return simd_avx512_vnni_f64;
  if (chosen() == Isa::avx512) return simd_avx512_f64;
  if (chosen() == Isa::avx2) return simd_avx2_f64;
#endif
  return simd_baseline_f64;
}

}  // namespace tcm::cpu
