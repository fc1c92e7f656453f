#include "dense_tiles.cuh"

#include "kernels.h"

namespace tcm::cuda {

void launch_dense_tiles(const Device& device, Dtype dtype, Precision precision, const Side& rows,
                        const Side& columns, const Shape& shape, const double* margins, const SuperTile& part,
                        const Decisions& to, const ScreenState& state, int weight, int64_t programs,
                        const Partial& partial) {
  const auto run = [&](auto kernel) {
    launch("dense_tiles", kernel, device, {programs}, kTileThreads, shared_bytes(kDenseHead, device.stages),
           rows, columns, shape, margins, device.stages, part, to, state, weight, partial);
  };
  switch (dtype) {
    case Dtype::bfloat16: return run(dense_tiles_kernel<BFloat16Product, BFloat16>);
    case Dtype::float16: return run(dense_tiles_kernel<HalfProduct, Half>);
    case Dtype::float32:
      return precision == Precision::highest ? run(dense_tiles_kernel<Float32Product, float>)
                                             : run(dense_tiles_kernel<Tf32Product, float>);
  }
}

}  // namespace tcm::cuda
