#include "prepare.cuh"

#include "kernels.h"

namespace tcm::cuda {

void launch_prepare(const Device& device, Dtype dtype, const Side& side, const Shape& shape,
                    int* not_finite) {
  constexpr int kRows = kPrepareThreads / kWarp;
  const Grid grid{ceil_div(side.n, kRows)};
  with_dtype(dtype, [&](auto t) {
    launch("prepare", prepare_kernel<decltype(t)>, device, grid, kPrepareThreads, 0, side, shape, not_finite);
  });
  if (shape.code_dim == 0) return;
  const Grid tiles{ceil_div(tiles_of(side.n), kRows)};
  launch("extremes", extremes_kernel, device, tiles, kPrepareThreads, 0, side);
}

}  // namespace tcm::cuda
