// What both screenings by codes share: thresholds that hold for a whole block of columns.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tile.h"

namespace tcm::cpu {

// What the codes of a block of columns have in common.
struct CodeRange {
  float smallest_scale = std::numeric_limits<float>::max();
  float largest_scale = 0;
  float largest_error = 0;

  CodeRange(const float* scales, const float* errors, int64_t count) {
    for (int64_t j = 0; j < count; ++j) {
      smallest_scale = std::min(smallest_scale, scales[j]);
      largest_scale = std::max(largest_scale, scales[j]);
      largest_error = std::max(largest_error, errors[j]);
    }
  }

  // The least product q of a row's code at which c_i c_j q can reach `similarity` for some column j, or a
  // little less. A ratio in float64, moved by more than its rounding to the safe side and cut off.
  int32_t threshold(float scale, double similarity) const {
    constexpr double kMove = 1e-9, kMost = 2147483000.0;
    const double unit = double(scale) * double(similarity > 0 ? largest_scale : smallest_scale);
    if (unit == 0) return similarity > 0 ? int32_t(kMost) : -int32_t(kMost);
    const double q = similarity / unit;
    return static_cast<int32_t>(std::clamp(q - std::abs(q) * kMove, -kMost, kMost));
  }
};

}  // namespace tcm::cpu
