// Screens tiles by one product per class: see centroids.h.
#pragma once

#include "tile.h"

namespace tcm::cpu {

// The products (first.classes(), columns), int32 or of the compute dtype, of the centroids of `first`'s block
// of rows with `columns` packed columns, from the first column of tile `first` on.
template <class T>
void multiply_centroids(const Tile<T>& first, const ScreeningPlan& screening, int64_t columns,
                        void* products);

// Screens a tile whose columns begin at `offset` in each row of these products; rows are `stride` apart.
// False where too many pairs are undecided; tile.bits is overwritten all the same, tile.sums is not.
template <class T>
bool screen_by_centroids(const Tile<T>& tile, const ScreeningPlan& screening, const void* products,
                         int64_t offset, int64_t stride);

}  // namespace tcm::cpu
