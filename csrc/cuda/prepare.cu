#include "prepare.cuh"

#include "kernels.h"

namespace tcm::cuda {

void launch_prepare(const Device& device, Dtype dtype, const Side& side, const Shape& shape,
                    int* not_finite) {
  constexpr int kRows = kPrepareThreads / kWarp;
  const Grid grid{(int64_t{side.n} + kRows - 1) / kRows};
  with_dtype(dtype, [&](auto t) {
    launch("prepare", prepare_kernel<decltype(t)>, device, grid, kPrepareThreads, 0, side, shape, not_finite);
  });
  if (shape.code_dim == 0) return;
  const Grid tiles{(tiles_of(side.n) + kRows - 1) / kRows};
  launch("extremes", extremes_kernel, device, tiles, kPrepareThreads, 0, side);
}

}  // namespace tcm::cuda
