// Probe: chooses how to screen, from a fixed sample of pairs, before any tile is screened.
//
// The choice depends on the data in three ways. Where most pairs lie too close to a margin for codes to
// decide, products of codes are wasted. Where hard negatives are rare, the first K of D columns often prove a
// pair harmless: the other columns add at most the product of the two tails,
//
//   |Σ_{k >= K} u_ik u_jk| <= t_i t_j,   t = ‖u[K:]‖.
//
// Without that, embeddings whose variances fall from column to column, as after a principal component
// analysis, take 1.32 times as long at 8192 x 2048 (benchmarks/results/ablation-prefix.json).
//
// Where the rows of a class are alike, one product may prove this for all of them: see centroids.h.
//
// The sample decides only what is computed first. Every pair is decided by a proof or by its similarity,
// whatever is chosen here. The same input gives the same sample, so results repeat.
#pragma once

#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// For a super-tile whose rows and columns are packed; `can_defer` as in screen(). Only pairs of two classes
// are counted, since those of one class are few.
template <class T>
ScreeningPlan probe(const Plan& plan, const SuperTile& super, Margins<double> margins, bool can_defer,
                    const Workspace& work);

// Writes the tail of each of the first `rows` packed rows, for a screening with a prefix.
template <class T>
void measure_tails(const Plan& plan, const ScreeningPlan& screening, int64_t rows, const PackedRows& packed);

}  // namespace tcm::cpu
