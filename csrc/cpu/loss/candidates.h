// What screen_by_codes and screen_by_centroids share: tile-wide thresholds, and the evaluation of undecided
// pairs. The terms are those of screening_plan.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tile.h"

namespace tcm::cpu {

// The extremes of scale and error over the codes of a block of columns.
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

  // For a row's code of scale c_i, the least product q at which c_i c_j q can reach `similarity` for some
  // column j, or a little less: a ratio in float64, lowered by more than its rounding, and truncated.
  int32_t threshold(float scale, double similarity) const {
    constexpr double kMove = 1e-9, kMost = 2147483000.0;
    const double unit = double(scale) * double(similarity > 0 ? largest_scale : smallest_scale);
    if (unit == 0) return similarity > 0 ? int32_t(kMost) : -int32_t(kMost);
    const double q = similarity / unit, safe = q - std::abs(q) * kMove;
    if (!(safe > -kMost)) return -int32_t(kMost);  // also where the margin is not a number
    return static_cast<int32_t>(std::min(safe, kMost));
  }
};

// With int8 codes, clears the undecided pairs of two classes that the product of the two rows' own codes
// proves harmless: it reads a few hundred bytes per pair, an inner product a few thousand.
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
    // Clears the bits of the row's pairs of two classes; those that may be hard are set again below.
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
    // The tile-wide threshold proves most of them harmless; the others get their own bound.
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

// Evaluates the undecided pairs, which are marked in tile.bits, and so finishes the tile. `marked` is their
// number or an upper bound of it; where that is too many, changes nothing and returns false.
template <class T>
bool finish_cheap_product(const Tile<T>& tile, int64_t marked) {
  if (!is_at_most(marked, kMaxUndecidedShare, tile.rows * tile.columns)) return false;
  clear_harmless(tile);
  *tile.sums = evaluate_marked(tile);
  return true;
}

}  // namespace tcm::cpu
