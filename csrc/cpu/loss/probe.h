// How to screen, decided by a look at a fixed sample of pairs before the sweep.
//
// Three things depend on the data. Where most pairs lie too close to a margin for int8 to tell, its products
// are wasted. And where hard negatives are rare, the first K of D columns often prove a pair harmless
// already: what the others can add is at most the product of the rows' remaining lengths,
//
//   |Σ_{k >= K} u_ik u_jk| <= t_i t_j,   t = ‖u[K:]‖.
//
// And where the rows of a class are alike, one product may do so for all of them: see centroids.h.
//
// The sample only decides what is computed first, never what is true: a pair is decided by proof or by its
// similarity whatever was chosen here. It is the same for the same input, so results repeat.
#pragma once

#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// For a super-tile whose rows are packed; `can_defer` as in screen(). Positives are few and not looked at.
template <class T>
ScreeningPlan probe(const Plan& plan, const SuperTile& super, Margins<double> margins, bool can_defer,
                    const Workspace& work);

// t of every packed row, for a screening with a prefix.
template <class T>
void measure_tails(const Plan& plan, const ScreeningPlan& screening, int64_t rows, const PackedRows& packed);

}  // namespace tcm::cpu
