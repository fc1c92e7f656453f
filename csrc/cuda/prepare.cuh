// Prepare: 1/norm, int8 codes in label order, and their certified errors; then what is extreme in each tile.
//
// A warp takes a row and reads it twice, the second time from the L1 cache. Bytes: 3 N D for bfloat16, 5 N D
// for float32. In float64, because the certificate's derivation asks for that. Not yet measured.
#pragma once

#include "../certificate.h"
#include "rows.cuh"

namespace tcm::cuda {

constexpr int kPrepareThreads = 256;

template <class T>
TCM_KERNEL(kPrepareThreads, 4)
prepare_kernel(TCM_PARAMETER(Side) side, TCM_PARAMETER(Shape) shape, int* not_finite) {
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
  if (shape.code_dim == 0) return;

  const double unit = norm.finite ? double{inverse} : 0.0;
  float scale = norm.finite ? static_cast<float>(warp_max(largest) * unit / kCodeLimit) : 0.0f;
  if (!(scale >= kSmallestScale)) scale = 0.0f;
  const float step = scale > 0.0f ? 1.0f / scale : 0.0f;
  double rest = 0.0;
  for (int d = lane_index() * kPerChunk<T>; d < shape.code_dim; d += kWarp * kPerChunk<T>) {
    const Chunk chunk = load_chunk(x, d, shape);
    uint32_t code[kPerChunk<T> / 4] = {};
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      const double value = norm.finite ? double{element(chunk, i, T())} * unit : 0.0;
      // Whichever way a tie falls, the error is taken from the code that it gave.
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
  if (lane_index() == 0) {
    side.scale[position] = scale;
    side.error[position] = round_up_error(rest);
  }
}

// A warp a tile.
TCM_KERNEL(kPrepareThreads, 4) extremes_kernel(TCM_PARAMETER(Side) side) {
  const int tile = block_index() * (kPrepareThreads / kWarp) + warp_index();
  if (tile >= tiles_of(side.n)) return;
  float error = 0.0f, largest = 0.0f, smallest = INFINITY;
  for (int i = lane_index(); i < kTile; i += kWarp) {
    const int64_t position = int64_t{tile} * kTile + i;
    if (position < side.n) {
      error = fmaxf(error, side.error[position]);
      largest = fmaxf(largest, side.scale[position]);
      smallest = fminf(smallest, side.scale[position]);
    }
  }
  error = warp_max(error);
  largest = warp_max(largest);
  smallest = -warp_max(-smallest);
  if (lane_index() == 0) {
    float* to = side.extremes + int64_t{tile} * 3;
    to[0] = error;
    to[1] = largest;
    to[2] = smallest;
  }
}

}  // namespace tcm::cuda
