// Sums of the unit rows of tiles, for tiles with few pairs that are not hard negatives (patterns.cuh).
//
// Bytes: the elements of all rows of the other side, once per super-tile and direction. Not yet measured.
#pragma once

#include "cuda/device/rows.cuh"
#include "screen_state.cuh"

namespace tcm::cuda {

template <class T>
TCM_DEVICE float sum_of_column(const Side& side, int first, int last, int d, const Shape& shape) {
  float sum = 0.0f;
  for (int position = first; position < last; ++position) {
    sum += static_cast<float>(row_of<T>(side, position, shape)[d]) * side.inverse[position];
  }
  return sum;
}

// The sums of the unit rows of each tile of one side of a super-tile, (tiles, dim): one block per tile (x)
// and kBlockSumThreads columns of the embeddings (y).
constexpr int kBlockSumThreads = 256;
template <class T>
TCM_KERNEL(kBlockSumThreads, 4)
block_sums_kernel(TCM_PARAMETER(Side) side, TCM_PARAMETER(Shape) shape, int first_tile,
                  TCM_PARAMETER(ScreenState) state, float* sums) {
  if (is_sparse(state)) return;
  const int d = block_index_y() * kBlockSumThreads + thread_index();
  if (d >= shape.dim) return;
  const int first = (first_tile + block_index()) * kTile;
  sums[int64_t{block_index()} * shape.dim + d] =
      sum_of_column<T>(side, first, min(first + kTile, side.n), d, shape);
}

}  // namespace tcm::cuda
