// What the screenings by codes share: thresholds that hold for a whole block of columns, and what becomes of
// the pairs that a first look leaves.
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
    const double q = similarity / unit, safe = q - std::abs(q) * kMove;
    if (!(safe > -kMost)) return -int32_t(kMost);  // a margin that is not a number, too
    return static_cast<int32_t>(std::min(safe, kMost));
  }
};

// Of the marked pairs of two classes, clears those that the product of the rows' own codes proves harmless:
// after a first look by less than that, a pair takes a few hundred bytes here, and a few thousand in full.
template <class T>
void clear_harmless(const Tile<T>& tile) {
  const Plan& plan = tile.plan;
  if (plan.coding.kind != Coding::int8) return;
  const auto* x = static_cast<const int8_t*>(tile.row_codes());
  const auto* r = static_cast<const int8_t*>(tile.column_codes());
  const CodeRange range(tile.column_scales(), tile.column_errors(), tile.columns);
  const float minus = static_cast<float>(tile.margins.minus);
  int32_t columns[kLargestTile], products[kLargestTile];
  for (int64_t i = 0; i < tile.rows; ++i) {
    // The pairs are taken out of the row's bits; those that may be hard are put back.
    const RowSpan span = tile.span(i);
    int64_t count = 0;
    for (int64_t w = 0; w < tile.words(); ++w) {
      uint64_t& bits = tile.row_bits(i)[w];
      if (bits == 0) continue;
      const uint64_t same = bits & span.same_bits(w);
      for_each_bit(bits ^ same, w * 64, [&](int64_t j) { columns[count++] = int32_t(j); });
      bits = same;
    }
    if (count == 0) continue;
    simd<T>().code_dots(x + i * plan.code_dim, r, columns, count, plan.code_dim, products);
    // Most are harmless by the bound of all columns of the tile; the others have their own.
    const RowCode row = tile.row_code(i);
    const int32_t least =
        range.threshold(row.scale, tile.margins.minus - similarity_error(row.error, range.largest_error));
    for (int64_t k = 0; k < count; ++k) {
      if (products[k] < least) continue;
      const int64_t j = columns[k];
      const float s = float(products[k]) * tile.column_scales()[j] * row.scale;
      if (s + similarity_error(row.error, tile.column_errors()[j]) >= minus) tile.set(i, j);
    }
  }
}

// Finishes a tile after a first look that left `marked` pairs marked; false where those are too many.
template <class T>
bool finish_first_look(const Tile<T>& tile, int64_t marked) {
  if (!is_at_most(marked, kMaxLeftShare, tile.rows * tile.columns)) return false;
  clear_harmless(tile);
  *tile.sums = evaluate_marked(tile);
  return true;
}

}  // namespace tcm::cpu
