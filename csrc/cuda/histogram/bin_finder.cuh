// Which column of the table a similarity falls into, on the device: the rule of bins.h, without float64
// arithmetic per pair.
//
// The rule is monotonic, so every column but the first begins at some float32, found by bisection with the
// rule itself. A pair then takes a product, a rounding and a comparison in float32. Pairs next to an edge,
// one in some thousands, and those taken together with them are compared with the edges around, as are all
// pairs in a range too narrow for float32.
#pragma once

#include "cuda/device/device.h"
#include "histogram.h"

namespace tcm::cuda {

// The float32 at a place in ascending order; places are consecutive integers.
TCM_DEVICE float float_at(uint32_t place) {
  return float_of((place & 0x80000000u) != 0 ? place ^ 0x80000000u : ~place);
}
constexpr uint32_t kLeastFloat = 0x00800000u, kInfinity = 0xFF800000u;

constexpr int kEdgeThreads = 256;

// Where each column begins: (B + 3,), with NaN, which compares false, at both ends.
TCM_KERNEL(kEdgeThreads, 4) bin_edges_kernel(TCM_PARAMETER(Bins) bins, float* edges) {
  const int column = block_index() * kEdgeThreads + thread_index();
  if (column > bins.columns()) return;
  uint32_t low = kLeastFloat, high = kInfinity;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (bins.column(double{float_at(middle)}) >= column) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  edges[column] = column == 0 || column == bins.columns() ? NAN : float_at(low);
}

// Columns of kCount similarities at once, so that their latencies overlap.
template <int kCount>
TCM_DEVICE void find_columns(const BinFinder& finder, const float* edges, const float (&s)[kCount],
                             int (&column)[kCount]) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding a number to it rounds the number to an integer
  const auto last = static_cast<float>(finder.columns - 2);
  float farthest = 0.0f;
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    const float at = fminf(fmaxf(fmaf(s[n], finder.scale, finder.offset), -1.0f), last);
    const float rounded = at + kRound;
    column[n] = static_cast<int>(bits_of(rounded) - bits_of(kRound)) + 1;
    farthest = fmaxf(farthest, fabsf(at - (rounded - kRound)));
  }
  if (farthest < finder.clear) return;
  bool moved;
  do {
    moved = false;
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const bool up = s[n] >= edges[column[n] + 1], down = s[n] < edges[column[n]];
      column[n] += up ? 1 : down ? -1 : 0;
      moved |= up || down;
    }
  } while (moved);
}

}  // namespace tcm::cuda
