// Inner products of int8 codes, by intrinsics for instructions that compilers do not choose by themselves;
// see kernels.h. Codes have a multiple of 64 elements.
#pragma once

#include "lanes.h"

namespace tcm::cpu {
namespace {

#if defined(TCM_VNNI)

// The sum of the lanes of each of four vectors.
inline __m128i sums_of_lanes(const __m512i (&acc)[4]) {
  __m256i half[4];
  for (int r = 0; r < 4; ++r) {
    __m256i halves[2];
    __builtin_memcpy(halves, &acc[r], sizeof(halves));
    half[r] = _mm256_add_epi32(halves[0], halves[1]);
  }
  const __m256i pairs =
      _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

// VNNI multiplies unsigned bytes by signed ones: Σ x y = Σ x (y + 128) - 128 Σ x, and y + 128 is y with its
// sign bit flipped. Four codes are taken at a time, so that their lanes are summed together and the cache
// lines of one are loaded while others are multiplied.
inline void code_dots(const int8_t* x, const int8_t* codes, const int32_t* index, int64_t count, int64_t n,
                      int32_t* out) {
  const __m512i sign = _mm512_set1_epi8(char(0x80));
  for (int64_t k = 0; k < count; k += 4) {
    const int8_t* rows[4];
    for (int r = 0; r < 4; ++r) rows[r] = codes + index[k + r < count ? k + r : k] * n;
    __m512i acc[4] = {}, offset = {};
    for (int64_t i = 0; i < n; i += 64) {
      const __m512i v = _mm512_loadu_si512(x + i);
      offset = _mm512_dpbusd_epi32(offset, sign, v);
      for (int r = 0; r < 4; ++r) {
        const __m512i shifted = _mm512_xor_si512(_mm512_loadu_si512(rows[r] + i), sign);
        acc[r] = _mm512_dpbusd_epi32(acc[r], shifted, v);
      }
    }
    for (__m512i& sum : acc) sum = _mm512_sub_epi32(sum, offset);
    const int64_t left = count - k;
    _mm_mask_storeu_epi32(out + k, left < 4 ? __mmask8((1 << left) - 1) : __mmask8(15), sums_of_lanes(acc));
  }
}

#else

// By the instruction that multiplies 16-bit integers and adds adjacent products, where the target has it:
// compilers do not emit it here.
inline int32_t code_dot(const int8_t* x, const int8_t* y, int64_t n) {
#if TCM_VECTOR_BYTES == 64
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int64_t i = 0; i < n; i += 64) {
    for (int half = 0; half < 2; ++half) {
      const __m512i a = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(x + i + 32 * half)));
      const __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(y + i + 32 * half)));
      sums[half] = _mm512_add_epi32(sums[half], _mm512_madd_epi16(a, b));
    }
  }
  typedef int32_t Integers __attribute__((vector_size(64)));
  return sum_of_lanes<int32_t>((Integers)_mm512_add_epi32(sums[0], sums[1]));
#elif TCM_VECTOR_BYTES == 32
  __m256i sums = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 16) {
    const __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(x + i)));
    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(y + i)));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
  }
  typedef int32_t Integers __attribute__((vector_size(32)));
  return sum_of_lanes<int32_t>((Integers)sums);
#else
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += int32_t(x[i]) * int32_t(y[i]);
  return sum;
#endif
}

inline void code_dots(const int8_t* x, const int8_t* codes, const int32_t* index, int64_t count, int64_t n,
                      int32_t* out) {
  for (int64_t k = 0; k < count; ++k) out[k] = code_dot(x, codes + index[k] * n, n);
}

#endif

}  // namespace
}  // namespace tcm::cpu
