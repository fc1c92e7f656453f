// THE rule of the bins: which column of the table a similarity falls into. Written here once, for C++ and
// CUDA alike.
//
//   bin of s = floor((s - lo) · B / (hi - lo)), in float64, evaluated from left to right
//
// Column 0 counts s < lo, columns 1 to B the bins, and column B + 1 s >= hi, so that rates at every edge are
// exact. Where hi - lo is a power of two, as by default, a product with its reciprocal is the same quotient.
#pragma once

#include <math.h>
#include <stdint.h>

#include "hard_pair.h"

namespace tcm {

struct Bins {
  double lo;
  double width;    // hi - lo
  double inverse;  // 1 / width where that is exact, else 0
  int32_t count;   // B

  static Bins make(double lo, double hi, int64_t count) {
    int exponent;
    const double width = hi - lo;
    const bool power_of_two = frexp(width, &exponent) == 0.5 && isfinite(1.0 / width);
    return {lo, width, power_of_two ? 1.0 / width : 0.0, static_cast<int32_t>(count)};
  }

  TCM_HOST_DEVICE TCM_INLINE int32_t columns() const { return count + 2; }

  // s - lo in units of one bin, for one similarity or a vector of lanes.
  template <class S>
  TCM_HOST_DEVICE TCM_INLINE S position(S s) const {
    const S scaled = (s - lo) * static_cast<double>(count);
    return inverse != 0.0 ? scaled * inverse : scaled / width;
  }

  TCM_HOST_DEVICE TCM_INLINE int32_t column(double s) const {
    const double at = position(s);
    return at < 0.0 ? 0 : at < static_cast<double>(count) ? static_cast<int32_t>(at) + 1 : count + 1;
  }
};

}  // namespace tcm
