#include "lists.cuh"

#include <algorithm>

namespace tcm::cuda {

int64_t list_blocks(int64_t rows) { return ceil_div(rows, kListRows); }

void launch_lists(const Device& device, Dtype dtype, const Side& own, const Side& other, const Shape& shape,
                  const Direction& direction, const double* margins, const ScreenState& state, int weight,
                  const Partial& partial) {
  const int rows = std::min(direction.own_tiles * kTile, own.n - direction.own_tile * kTile);
  const auto run = [&](auto kernel) {
    launch("lists", kernel, device, {list_blocks(rows)}, kListThreads, kListPartialBytes, own, other, shape,
           direction, margins, state, weight, partial);
  };
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    switch (elements_per_lane(shape.dim)) {
      case 8: return run(lists_kernel<T, 8>);
      case 16: return run(lists_kernel<T, 16>);
      default: return run(lists_kernel<T, kLargestPerLane>);
    }
  });
}

}  // namespace tcm::cuda
