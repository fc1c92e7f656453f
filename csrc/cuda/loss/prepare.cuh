// Prepare: norms, the range of each row's class on the other side, and int8 codes with certified errors.
//
// Two kernels, since the rows of a tile share a scale, known when all of them have been read: `norms` writes
// the scale that each row would have by itself, `codes` takes the largest of the tile; both use one warp per
// row. Bytes: norms N D elements, codes N D elements (which the L2 cache holds up to some 40 MB) and N D
// bytes: 5 N D for bfloat16, 9 N D for float32. Predicted for an H100, N = 32,768, D = 512, bfloat16: 84 MB
// at 3 TB/s are 28 us, 0.02 U. Errors are computed in float64, as the certificate requires, codes in float32.
//
// The two ends of a class's range are searched in the sorted labels at once, by half a warp each: a step
// compares 16 labels, so that a million rows take five steps, of which the first hit the L1 cache.
#pragma once

#include "common/certificate.h"
#include "cuda/device/rows.cuh"

namespace tcm::cuda {

constexpr int kPrepareThreads = 256;
constexpr int kProbes = kWarp / 2;

// How many of n sorted labels are less than `label` or, in the upper half of a warp, not greater. All lanes
// must call; those of a half get the same result.
TCM_DEVICE int count_labels_before(int64_t label, const int64_t* sorted, int n) {
  const bool upper = lane_index() >= kProbes;
  const int probe = lane_index() % kProbes;
  int least = 0, most = n;  // bounds of the result
  while (ballot(least < most) != 0) {
    const int step = (most - least) / (kProbes + 1) + 1, at = least + (probe + 1) * step - 1;
    const bool before = at < most && (upper ? sorted[at] <= label : sorted[at] < label);
    const uint32_t said = ballot(before);
    const int passed = count_bits(upper ? said >> kProbes : said & 0xFFFFu);
    if (passed < kProbes) most = min(most, least + (passed + 1) * step - 1);
    least += passed * step;
  }
  return least;
}

template <class T>
TCM_KERNEL(kPrepareThreads, 4)
norms_kernel(TCM_PARAMETER(Side) side, TCM_PARAMETER(Shape) shape, const int64_t* other_label, int others,
             int* not_finite) {
  const int64_t position = int64_t{block_index()} * (kPrepareThreads / kWarp) + warp_index();
  if (position >= side.n) return;
  const T* x = row_of<T>(side, static_cast<int>(position), shape);
  double square = 0.0;
  float largest = 0.0f;
  for (int d = lane_index() * kPerChunk<T>; d < shape.dim; d += kWarp * kPerChunk<T>) {
    const Chunk chunk = load_chunk(x, d, shape);
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      const float value = element(chunk, i, T());
      square += double{value} * double{value};
      largest = fmaxf(largest, fabsf(value));
    }
  }
  const Norm norm = norm_of(warp_sum(square));
  const float inverse = static_cast<float>(norm.inverse);
  if (lane_index() == 0) {
    side.inverse[position] = norm.finite ? inverse : NAN;
    if (!norm.finite) *not_finite = 1;
  }
  if (shape.code_dim > 0) {
    largest = warp_max(largest);
    if (lane_index() == 0) {
      side.own_scale[position] =
          norm.finite ? static_cast<float>(double{largest} * double{inverse} / kCodeLimit) : 0.0f;
    }
  }
  if (side.label == nullptr) return;
  const int before = count_labels_before(side.label[position], other_label, others);
  if (lane_index() == 0) side.same_begin[position] = before;
  if (lane_index() == kProbes) side.same_end[position] = before;
}

// The scale that the rows of a tile share. All lanes must call.
TCM_DEVICE float scale_of_tile(const Side& side, int64_t tile) {
  float scale = 0.0f;
#pragma unroll
  for (int i = 0; i < kTile; i += kWarp) {
    const int64_t position = tile * kTile + i + lane_index();
    if (position < side.n) scale = fmaxf(scale, side.own_scale[position]);
  }
  scale = warp_max(scale);
  return scale >= kSmallestTileScale ? scale : 0.0f;
}

// Writes whole tiles: past the last row, codes and errors are 0.
template <class T>
TCM_KERNEL(kPrepareThreads, 4)
codes_kernel(TCM_PARAMETER(Side) side, TCM_PARAMETER(Shape) shape) {
  const int64_t position = int64_t{block_index()} * (kPrepareThreads / kWarp) + warp_index();
  const float scale = scale_of_tile(side, position / kTile);
  if (position % kTile == 0 && lane_index() == 0) side.scale[position / kTile] = scale;
  const bool there = position < side.n;
  const T* x = there ? row_of<T>(side, static_cast<int>(position), shape) : nullptr;
  const float inverse = there ? side.inverse[position] : NAN;
  const bool counts = inverse == inverse;  // the row exists and its norm is finite
  const double unit = counts ? double{inverse} : 0.0;
  const float step = scale > 0.0f ? 1.0f / scale : 0.0f;
  double rest = 0.0;
  for (int d = lane_index() * kPerChunk<T>; d < shape.code_dim; d += kWarp * kPerChunk<T>) {
    const Chunk chunk = counts ? load_chunk(x, d, shape) : Chunk{};
    uint32_t code[kPerChunk<T> / 4] = {};
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      const double value = double{element(chunk, i, T())} * unit;
      // A tie may be rounded either way: the error is that of the code it became.
      const float rounded = floorf(static_cast<float>(value) * step + 0.5f);
      const int q = static_cast<int>(fminf(fmaxf(rounded, -float{kCodeLimit}), float{kCodeLimit}));
      code[i / 4] |= (static_cast<uint32_t>(q) & 0xFFu) << (i % 4 * 8);
      const double off = value - double{scale} * q;
      rest += off * off;
    }
    auto* to = reinterpret_cast<uint32_t*>(side.code + position * shape.code_dim + d);
#pragma unroll
    for (int i = 0; i < kPerChunk<T> / 4; ++i) to[i] = code[i];
  }
  rest = warp_sum(rest);
  if (lane_index() == 0) side.error[position] = there ? round_up_error(rest) : 0.0f;
}

}  // namespace tcm::cuda
