// Screen: which pairs of a super-tile are hard, one bit each, and what they add to the loss.
//
// A tile is multiplied in codes (quantize.h), several times faster than in the compute dtype, or first by one
// centroid per class (centroids.h). By the certificate (certificate.h) this proves almost every pair
// harmless; the few others are evaluated in full precision, one inner product each, in row order. A tile with
// too many of them is multiplied in full precision as a whole. A tile whose pairs are all proven hard needs
// no similarity, because Σ s = (sum of its rows)·(sum of its columns). The choice follows from the data
// alone, so results repeat bit for bit. Every pair is decided by a proof or by its similarity.
#pragma once

#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// Fills work.bits and work.tile_sums for every tile of `super`. Where `can_defer`, sums of similarities may
// be left to `accumulate`, which must then be given P and Q of the rows.
template <class T>
void screen(const Plan& plan, const SuperTile& super, const ScreeningPlan& screening, Margins<double> margins,
            bool can_defer, const Workspace& work);

}  // namespace tcm::cpu
