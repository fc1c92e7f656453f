#include "dense_tiles.cuh"

#include "kernels.h"

namespace tcm::cuda {

void launch_full_tiles(const Device& device, Dtype dtype, Precision precision, const Side& rows,
                       const Side& columns, const Shape& shape, const double* margins, const SuperTile& part,
                       const Decisions& to, const Found& found, int weight, int64_t programs,
                       const Partial& partial) {
  const auto run = [&](auto kernel) {
    launch("full_tiles", kernel, device, {programs}, kTileThreads, shared_bytes(kFullHead, device.stages),
           rows, columns, shape, margins, device.stages, part, to, found, weight, partial);
  };
  switch (dtype) {
    case Dtype::bfloat16: return run(full_tiles_kernel<BFloat16Product, BFloat16>);
    case Dtype::float16: return run(full_tiles_kernel<HalfProduct, Half>);
    case Dtype::float32:
      return precision == Precision::highest ? run(full_tiles_kernel<Float32Product, float>)
                                             : run(full_tiles_kernel<Tf32Product, float>);
  }
}

}  // namespace tcm::cuda
