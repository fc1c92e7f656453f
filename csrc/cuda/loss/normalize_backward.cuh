// The backward: gradient of raw rows, g = w+ P + w- Q through the normalisation, (g - (g·x̂) x̂) / norm.
//
// One warp per row reads the row and its P and Q twice, the second time from the L1 cache. Bytes: 12 N D for
// bfloat16, 16 N D for float32. Not yet measured.
#pragma once

#include "cuda/device/rows.cuh"

namespace tcm::cuda {

constexpr int kNormalizeBackwardThreads = 256;

template <class T>
TCM_KERNEL(kNormalizeBackwardThreads, 4)
normalize_backward_kernel(const T* x, TCM_PARAMETER(PartnerSums) of, const double* nan_flag,
                          const double* grad_sums, int ordered, T* grad, int n, TCM_PARAMETER(Shape) shape) {
  constexpr int kMany = kPerChunk<T>;
  const int64_t at = int64_t{block_index()} * (kNormalizeBackwardThreads / kWarp) + warp_index();
  if (at >= n) return;
  const T* row = x + at * shape.dim;
  const float* p = of.positive + at * shape.dim;
  const float* q = of.negative + at * shape.dim;
  const float pull = static_cast<float>(-ordered * grad_sums[0] + *nan_flag);
  const float push = static_cast<float>(ordered * grad_sums[1] + *nan_flag);
  // Calls use(d, x, g) for this lane's elements of the row, kMany at a time, from element d on.
  const auto for_each_chunk = [&](auto use) {
    for (int d = lane_index() * kMany; d < shape.dim; d += kWarp * kMany) {
      const Chunk chunk = load_chunk(row, d, shape);
      float value[kMany], g[kMany], pushes[kMany];
      load_floats(g, p, d, shape);
      load_floats(pushes, q, d, shape);
#pragma unroll
      for (int i = 0; i < kMany; ++i) {
        value[i] = element(chunk, i, T());
        g[i] = fmaf(pull, g[i], push * pushes[i]);
      }
      use(d, value, g);
    }
  };

  double square = 0.0;
  float along = 0.0f;  // g·x
  for_each_chunk([&](int, const float (&value)[kMany], const float (&g)[kMany]) {
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      square += double{value[i]} * double{value[i]};
      along = fmaf(g[i], value[i], along);
    }
  });
  const Norm norm = norm_of(warp_sum(square));
  const float inverse = static_cast<float>(norm.inverse);
  along = warp_sum(along) * inverse;
  if (norm.norm < kNormFloor) along = 0.0f;
  for_each_chunk([&](int d, const float (&value)[kMany], float (&g)[kMany]) {
#pragma unroll
    for (int i = 0; i < kMany; ++i) g[i] = (g[i] - along * (value[i] * inverse)) * inverse;
    store_elements(g, grad + at * shape.dim, d, shape);
  });
}

}  // namespace tcm::cuda
