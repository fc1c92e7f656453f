#include "patterns.cuh"

#include "block_sums.cuh"

namespace tcm::cuda {

void launch_patterns(const Device& device, Dtype dtype, Precision precision, const Side& own,
                     const Side& other, const Shape& shape, const Direction& direction,
                     const ScreenState& state, float* block_sums) {
  const Grid sums{direction.other_tiles, static_cast<int>(ceil_div(shape.dim, kBlockSumThreads))};
  with_dtype(dtype, [&](auto t) {
    launch("block_sums", block_sums_kernel<decltype(t)>, device, sums, kBlockSumThreads, 0, other, shape,
           direction.other_tile, state, block_sums);
  });
  const auto run = [&](auto way) {
    using Way = decltype(way);
    const Grid grid{direction.own_tiles, static_cast<int>(ceil_div(shape.dim, Way::kWidth)), 2};
    launch("patterns", patterns_kernel<Way>, device, grid, kPatternThreads, kPatternBytes<Way>, own, other,
           shape, direction, state, block_sums);
  };
  switch (dtype) {
    case Dtype::bfloat16: return run(BFloat16Weights());
    case Dtype::float16: return run(HalfScaled());
    case Dtype::float32:
      return precision == Precision::highest ? run(Float32Parts<3>()) : run(Float32Parts<2>());
  }
}

}  // namespace tcm::cuda
