// The backward: gradient of raw rows, g = w+ P + w- Q through the normalisation, (g - (g·x̂) x̂) / norm.
//
// A warp takes a row, and reads it and its P and Q twice, the second time from the L1 cache. Bytes: 12 N D
// for bfloat16, 16 N D for float32. Not yet measured.
#pragma once

#include "rows.cuh"

namespace tcm::cuda {

constexpr int kChainThreads = 256;

template <class T>
TCM_KERNEL(kChainThreads, 4)
chain_kernel(const T* x, TCM_PARAMETER(Sums) of, const double* poison, const double* grad_sums, int ordered,
             T* grad, int n, TCM_PARAMETER(Shape) shape) {
  constexpr int kMany = kPerChunk<T>;
  const int64_t at = int64_t{block_index()} * (kChainThreads / kWarp) + warp_index();
  if (at >= n) return;
  const T* row = x + at * shape.dim;
  const float* p = of.positive + at * shape.dim;
  const float* q = of.negative + at * shape.dim;
  const float pull = static_cast<float>(-ordered * grad_sums[0] + *poison);
  const float push = static_cast<float>(ordered * grad_sums[1] + *poison);
  double square = 0.0;
  float along = 0.0f;  // g·x
  for (int d = lane_index() * kMany; d < shape.dim; d += kWarp * kMany) {
    const Chunk chunk = load_chunk(row, d, shape);
    float pulls[kMany], pushes[kMany];
    load_floats(pulls, p, d, shape);
    load_floats(pushes, q, d, shape);
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      const float value = element(chunk, i, T());
      square += double{value} * double{value};
      along = fmaf(fmaf(pull, pulls[i], push * pushes[i]), value, along);
    }
  }
  const Norm norm = norm_of(warp_sum(square));
  const float inverse = static_cast<float>(norm.inverse);
  along = warp_sum(along) * inverse;
  if (norm.norm < kNormFloor) along = 0.0f;
  for (int d = lane_index() * kMany; d < shape.dim; d += kWarp * kMany) {
    const Chunk chunk = load_chunk(row, d, shape);
    float values[kMany], pushes[kMany];
    load_floats(values, p, d, shape);
    load_floats(pushes, q, d, shape);
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      const float g = fmaf(pull, values[i], push * pushes[i]);
      values[i] = (g - along * (element(chunk, i, T()) * inverse)) * inverse;
    }
    store_elements(values, grad + at * shape.dim, d, shape);
  }
}

}  // namespace tcm::cuda
