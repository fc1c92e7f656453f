// Tiles by one product a class: see centroids.h.
#pragma once

#include "tile.h"

namespace tcm::cpu {

// The products of the classes of the block of rows that tile `first` is in with `columns` packed columns,
// from its own first one on: (first.classes(), columns), int32 or of the compute dtype.
template <class T>
void multiply_centroids(const Tile<T>& first, const ScreeningPlan& screening, int64_t columns,
                        void* products);

// Screens a tile whose columns begin at `offset` in rows of `stride` of those products; false where they
// leave too many pairs.
template <class T>
bool screen_by_centroids(const Tile<T>& tile, const ScreeningPlan& screening, const void* products,
                         int64_t offset, int64_t stride);

}  // namespace tcm::cpu
