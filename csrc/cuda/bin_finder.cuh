// Which column of the table a similarity falls into, on the device: the rule of bins.h, without float64 at
// every pair.
//
// The rule grows with the similarity, so each column but the first has a smallest float32, found by bisection
// with the rule itself. A pair then takes a product, a rounding and a comparison in float32; about one in a
// thousand, next to an edge or in a range too narrow for float32, is compared with the edges around.
#pragma once

#include "device.h"
#include "histogram.h"

namespace tcm::cuda {

// Float32 numbers, negative ones first, as integers that grow with them.
TCM_DEVICE float float_at(uint32_t place) {
  return float_of((place & 0x80000000u) != 0 ? place ^ 0x80000000u : ~place);
}
constexpr uint32_t kLeastFloat = 0x00800000u, kInfinity = 0xFF800000u;

constexpr int kEdgeThreads = 256;

TCM_KERNEL(kEdgeThreads, 4) bin_edges_kernel(TCM_PARAMETER(Bins) bins, float* edges) {
  const int edge = block_index() * kEdgeThreads + thread_index();
  if (edge > bins.count) return;
  uint32_t low = kLeastFloat, high = kInfinity;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (bins.column(double{float_at(middle)}) > edge) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  edges[edge] = float_at(low);
}

TCM_DEVICE int column_of(const BinFinder& finder, const float* edges, float s) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
  const auto last = static_cast<float>(finder.columns - 2);
  const float at = fminf(fmaxf(fmaf(s, finder.scale, finder.offset), -1.0f), last);
  const float rounded = at + kRound;
  int column = static_cast<int>(bits_of(rounded) - bits_of(kRound)) + 1;
  if (!(fabsf(at - (rounded - kRound)) < finder.clear)) {
    while (column > 0 && s < edges[column - 1]) --column;
    while (column < finder.columns - 1 && s >= edges[column]) ++column;
  }
  return column;
}

}  // namespace tcm::cuda
