// Accumulate: each sample of a hard pair adds its unit row to P (one class) or Q (two classes) of the other.
//
//   P_i = Σ r̂_j over i's hard positives,   Q_i = Σ r̂_j over its hard negatives
//
// Per tile and sign there are four kinds: empty; a list, where each set bit adds one row; a pattern, which is
// multiplied with the unit rows (by additions only, four bits at a time: simd/pattern.h); and full minus a
// list, the sum of the block less the rows of the bits not set. A task is a block, a chunk of D and a sign,
// and takes its tiles in order: no two threads add to the same element, and the result is the same at every
// thread count that leads to the same tiles and chunks.
//
// A sum of similarities that screening deferred is read off the product of the pattern, Σ s = Σ_i x̂_i·P_i:
// one inner product per row in the compute dtype, then float64. In float32 that is as accurate as adding the
// similarities of a float32 product: both round sums of D and of at most 512 terms. Without it, tiles with
// many hard and many other pairs are multiplied in full precision: 1.19 times as long for an untrained
// network's embeddings of which a fifth of the pairs is hard
// (benchmarks/results/ablation-deferred-sums.json).
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
