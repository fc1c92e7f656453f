// Screens tiles by products of the rows' own codes.
#pragma once

#include "tile.h"

namespace tcm::cpu {

// Screens the tile by products of codes. False where it needs all similarities: then tile.sums is untouched,
// while tile.bits, `products` and `open` are overwritten. `can_defer`: sums of similarities may be left to
// `accumulate`. `open` has room for a bit map of the tile.
template <class T>
bool screen_by_codes(const Tile<T>& tile, const ScreeningPlan& screening, bool can_defer, int32_t* products,
                     uint64_t* open);

}  // namespace tcm::cpu
