// THE rule of the loss: when is a pair hard? Written here once, for C++ and CUDA alike.
//
//   a pair of one class is hard where s <= m+,   a pair of two classes where s >= m-,
//
// both inclusive. (Zhang et al., ICLR 2024: hard where d >= 0 with d = m+ - s or s - m-. Comparing s with
// the margin is the same in IEEE arithmetic and needs no subtraction, which flush-to-zero could spoil.)
// A NaN similarity is never hard. Both functions take one similarity or a vector of lanes.
//
// The penalty of a hard pair is linear in s, so sums over hard pairs need only their number and the sum
// of their similarities:   Σ+ = m+ n+ - Σ s,   Σ- = Σ s - m- n-.
#pragma once

#ifdef __CUDACC__
#define TCM_HOST_DEVICE __host__ __device__
#else
#define TCM_HOST_DEVICE
#endif

namespace tcm {

template <class S>
struct Margins {
  S plus;
  S minus;
};

template <class Lanes, class S>
static inline TCM_HOST_DEVICE auto is_hard_positive(Lanes s, Margins<S> m) -> decltype(s <= m.plus) {
  return s <= m.plus;
}

template <class Lanes, class S>
static inline TCM_HOST_DEVICE auto is_hard_negative(Lanes s, Margins<S> m) -> decltype(s >= m.minus) {
  return s >= m.minus;
}

}  // namespace tcm
