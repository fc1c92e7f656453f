// Accumulate: every hard pair adds each end's unit row to the other end's P (same class) or Q.
//
//   P_i = Σ r̂_j over i's hard positives,   Q_i = Σ r̂_j over its hard negatives
//
// Per tile and sign there are four kinds: empty; a list, where each set bit is one row added; a pattern,
// where the matrix of bits is multiplied with the unit rows (which takes additions only, four bits at a
// time: simd/pattern.h); and full minus a list, the sum of the block less the rows of the bits not set. A
// block of rows belongs to one task, and a task walks the tiles in order: nothing is added by two threads,
// and the result is the same at every thread count that leads to the same tiles.
//
// Sums of similarities that screening deferred are read off the patterns' products, Σ s = Σ_i x̂_i·P_i: an
// inner product a row in the compute dtype, and float64 from there on. In float32 that is as accurate as
// adding the similarities of a float32 product: either rounds sums of D and of at most 512 terms.
#pragma once

#include "super_tile.h"

namespace tcm::cpu {

// P and Q of one side, rows in the user's order; null where that side's gradient is not wanted.
template <class T>
struct PartnerSums {
  T* positive;  // (rows, D)
  T* negative;  // (rows, D)
};

template <class T>
void accumulate(const Plan& plan, const SuperTile& super, const Workspace& work, PartnerSums<T> of_rows,
                PartnerSums<T> of_columns);

}  // namespace tcm::cpu
