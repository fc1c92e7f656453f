#include "prepare.cuh"

#include "kernels.h"

namespace tcm::cuda {

constexpr int kPreparedRows = kPrepareThreads / kWarp;

void launch_norms(const Device& device, Dtype dtype, const Side& side, const Shape& shape,
                  const int64_t* other_label, int others, int* not_finite) {
  const Grid grid{ceil_div(side.n, kPreparedRows)};
  with_dtype(dtype, [&](auto t) {
    launch("norms", norms_kernel<decltype(t)>, device, grid, kPrepareThreads, 0, side, shape, other_label,
           others, not_finite);
  });
}

void launch_codes(const Device& device, Dtype dtype, const Side& side, const Shape& shape) {
  const Grid grid{tiles_of(side.n) * kTile / kPreparedRows};
  with_dtype(dtype, [&](auto t) {
    launch("codes", codes_kernel<decltype(t)>, device, grid, kPrepareThreads, 0, side, shape);
  });
}

}  // namespace tcm::cuda
