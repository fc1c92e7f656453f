// THE rule of the loss: when is a pair hard? Written here once, for C++ and CUDA alike.
//
//   a pair of one class is hard where s <= m+,   a pair of two classes where s >= m-,
//
// both inclusive. (Zhang et al., ICLR 2024: hard where d >= 0 with d = m+ - s or s - m-. Comparing s with
// the margin is the same in IEEE arithmetic and needs no subtraction, which flush-to-zero could spoil.)
// A NaN similarity is never hard. Both functions take one similarity or a vector of lanes.
//
// Margins are float64 numbers. Where similarities are float32, m+ is rounded down and m- up to the next
// float32: a float32 s lies on the same side of the rounded margin as of the margin itself.
//
// The penalty of a hard pair is linear in s, so sums over hard pairs need only their number and the sum
// of their similarities:   Σ+ = m+ n+ - Σ s,   Σ- = Σ s - m- n-,   with the margins as given, not rounded.
#pragma once

#include <math.h>

#ifdef __CUDACC__
#define TCM_HOST_DEVICE __host__ __device__
#else
#define TCM_HOST_DEVICE
#endif
// For inline members with external linkage that files of several instruction sets include: the linker keeps
// one copy for all of them, possibly one compiled for a wider set than the processor has.
#if defined(__GNUC__) || defined(__clang__)
#define TCM_INLINE __attribute__((always_inline))
#else
#define TCM_INLINE
#endif

namespace tcm {

template <class S>
struct Margins {
  S plus;
  S minus;
};

// The margins that similarities of type S are compared with.
template <class S>
static inline TCM_HOST_DEVICE Margins<S> thresholds(Margins<double> m);

template <>
inline TCM_HOST_DEVICE Margins<double> thresholds<double>(Margins<double> m) {
  return m;
}

template <>
inline TCM_HOST_DEVICE Margins<float> thresholds<float>(Margins<double> m) {
  const float plus = static_cast<float>(m.plus), minus = static_cast<float>(m.minus);
  return {plus > m.plus ? nextafterf(plus, -2.0f) : plus, minus < m.minus ? nextafterf(minus, 2.0f) : minus};
}

template <class Lanes, class S>
static inline TCM_HOST_DEVICE auto is_hard_positive(Lanes s, Margins<S> m) -> decltype(s <= m.plus) {
  return s <= m.plus;
}

template <class Lanes, class S>
static inline TCM_HOST_DEVICE auto is_hard_negative(Lanes s, Margins<S> m) -> decltype(s >= m.minus) {
  return s >= m.minus;
}

// The rule for a pair of one class (`same`) or of two.
template <class S>
static inline TCM_HOST_DEVICE bool is_hard(S s, bool same, Margins<S> m) {
  return same ? is_hard_positive(s, m) : is_hard_negative(s, m);
}

// What a hard pair adds to the sum of its sign; `m` are the margins that its similarity is compared with.
template <class S>
static inline TCM_HOST_DEVICE S penalty(S s, bool same, Margins<S> m) {
  return same ? m.plus - s : s - m.minus;
}

}  // namespace tcm
