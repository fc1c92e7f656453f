// Screen: which pairs of a super-tile are hard, one bit each, and what they add to the loss.
//
// A tile is first multiplied in codes (quantize.h), several times faster than in the compute dtype, or only
// one code a class is (centroids.h). By the certificate (certificate.h) that proves almost every pair
// harmless; the few that are left are evaluated in full precision, one inner product each, in row order. A
// tile with too many left is multiplied in full precision as a whole; one whose pairs are all proven hard
// needs no similarity at all, because Σ s = (sum of its rows)·(sum of its columns). Which happens follows
// from the data alone, so results repeat bit for bit. No pair is decided without proof.
#pragma once

#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// Fills work.bits and work.tile_sums for every tile of `super`. Where `can_defer`, a tile's sums may be left
// to `accumulate`, which must then add to the rows.
template <class T>
void screen(const Plan& plan, const SuperTile& super, const ScreeningPlan& screening, Margins<double> margins,
            bool can_defer, const Workspace& work);

}  // namespace tcm::cpu
