// Vectors of the target's width; see kernels.h. A load needs the alignment of an element, not of a vector.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "simd.h"

namespace tcm::cpu {
namespace {

constexpr int kWord = 64;  // columns per word of the bit map

template <class T>
struct Lanes {
  static constexpr int count = TCM_VECTOR_BYTES / int(sizeof(T));
  typedef T Vector __attribute__((vector_size(TCM_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

// One bit per lane of a comparison's result, lane 0 in bit 0.
template <class Mask>
inline uint64_t lane_bits(Mask mask, float) {
#if TCM_VECTOR_BYTES == 64
  return _mm512_movepi32_mask((__m512i)mask);
#elif TCM_VECTOR_BYTES == 32
  return uint32_t(_mm256_movemask_ps((__m256)mask));
#elif defined(__x86_64__)
  return uint32_t(_mm_movemask_ps((__m128)mask));
#else
  uint64_t bits = 0;
  for (int k = 0; k < Lanes<float>::count; ++k) bits |= uint64_t(mask[k] & 1) << k;
  return bits;
#endif
}

template <class Mask>
inline uint64_t lane_bits(Mask mask, double) {
#if TCM_VECTOR_BYTES == 64
  return _mm512_movepi64_mask((__m512i)mask);
#elif TCM_VECTOR_BYTES == 32
  return uint32_t(_mm256_movemask_pd((__m256d)mask));
#elif defined(__x86_64__)
  return uint32_t(_mm_movemask_pd((__m128d)mask));
#else
  uint64_t bits = 0;
  for (int k = 0; k < Lanes<double>::count; ++k) bits |= uint64_t(mask[k] & 1) << k;
  return bits;
#endif
}

template <class T>
inline typename Lanes<T>::Vector load(const T* p) {
  return *(const typename Lanes<T>::Vector*)p;
}

// The sum of a vector's lanes, by adding its halves.
template <class T, int kBytes = TCM_VECTOR_BYTES, class Vector>
inline T sum_of_lanes(Vector v) {
  if constexpr (kBytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    typedef T Half __attribute__((vector_size(kBytes / 2), may_alias));
    Half half[2];
    __builtin_memcpy(half, &v, kBytes);
    return sum_of_lanes<T, kBytes / 2>(half[0] + half[1]);
  }
}

// A vector of float64, and conversions to and from as many elements of another type. The three conversions
// that compilers split into halves or single elements are written as intrinsics.
constexpr int kWide = Lanes<double>::count;
using Wide = Lanes<double>::Vector;

template <class T>
inline Wide widen(const T* p) {
  typedef T Narrow __attribute__((vector_size(kWide * sizeof(T)), aligned(alignof(T)), may_alias));
  return __builtin_convertvector(*(const Narrow*)p, Wide);
}
template <class T>
inline void narrow(Wide v, T* out) {
  typedef T Narrow __attribute__((vector_size(kWide * sizeof(T)), aligned(alignof(T)), may_alias));
  *(Narrow*)out = __builtin_convertvector(v, Narrow);
}
#if TCM_VECTOR_BYTES == 64
template <>
inline Wide widen(const float* p) {
  return (Wide)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
}
template <>
inline Wide widen(const int8_t* p) {
  return (Wide)_mm512_maskz_cvtepi32_pd(0xff, _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
template <>
inline void narrow(Wide v, float* out) {
  _mm256_storeu_ps(out, _mm512_maskz_cvtpd_ps(0xff, (__m512d)v));
}
#elif TCM_VECTOR_BYTES == 32
template <>
inline Wide widen(const float* p) {
  return (Wide)_mm256_cvtps_pd(_mm_loadu_ps(p));
}
template <>
inline Wide widen(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof(four));
  return (Wide)_mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
}
template <>
inline void narrow(Wide v, float* out) {
  _mm_storeu_ps(out, _mm256_cvtpd_ps((__m256d)v));
}
#endif

// A bfloat16 is the upper half of a float32.
inline Wide widen(const uint16_t* p) {
  typedef uint16_t Narrow __attribute__((vector_size(kWide * 2), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(kWide * 4)));
  typedef float Floats __attribute__((vector_size(kWide * 4)));
  return __builtin_convertvector((Floats)(__builtin_convertvector(*(const Narrow*)p, Bits) << 16), Wide);
}
inline float float_of(uint16_t bfloat16) {
  const uint32_t bits = uint32_t(bfloat16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Loaders at index i of an array: a vector of elements, or one element, converted to float64.
struct WideAt {
  int64_t i;
  template <class T>
  Wide operator()(const T* p) const {
    return widen(p + i);
  }
};
struct OneAt {
  int64_t i;
  template <class T>
  double operator()(const T* p) const {
    return double(p[i]);
  }
  double operator()(const uint16_t* p) const { return double(float_of(p[i])); }
};

// Σ term(i) in float64, in an order that depends on n and the instruction set alone. `term` is called with
// one of these loaders.
template <class Term>
inline double reduce(int64_t n, Term term) {
  Wide sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWide <= n; i += 4 * kWide) {
    for (int k = 0; k < 4; ++k) sums[k] += term(WideAt{i + k * kWide});
  }
  for (; i + kWide <= n; i += kWide) sums[0] += term(WideAt{i});
  double sum = sum_of_lanes<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; ++i) sum += term(OneAt{i});
  return sum;
}

// out[i] = term(i), computed in float64.
template <class T, class Term>
inline void fill(T* out, int64_t n, Term term) {
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) narrow(term(WideAt{i}), out + i);
  for (; i < n; ++i) out[i] = T(term(OneAt{i}));
}

}  // namespace
}  // namespace tcm::cpu
