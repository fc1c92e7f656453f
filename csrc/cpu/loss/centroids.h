// One code for all rows of a class: a first look at them with one product in place of one each.
//
// What training pulls together is close together, so rows of one class differ little from their mean. If
// c q is close to that mean, u_i = c q + ρ_i holds for each of them with a ρ_i that is longer than that of
// a code of its own, but short still; the certificate is the same (certificate.h). With four samples a class
// that take a product of a quarter of the size, and a pair is left only where the mean comes within
// max ‖ρ_i‖ (0.2 to 0.4 for a class of cosines 0.95 to 0.8) of the margin: few, because most classes are
// unlike each other. Those that are left get an inner product each. Whether it pays, a sample decides
// (probe.h). Rows of a class stand together within a block, because they are sorted by label.
#pragma once

#include <cstdint>

#include "cpu/simd/simd.h"
#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// The code of packed rows [first, last): a code as plan.coding asks, or a row of the compute dtype, and
// its scale and error. `mean` has room for a row.
template <class T>
RowCode quantize_centroid(const Plan& plan, const PackedRows& packed, int64_t first, int64_t last, T* mean,
                          void* code);

// How many classes the rows of `super` have, those in two blocks counted twice.
int64_t count_classes(const Plan& plan, const SuperTile& super, const Workspace& work);

// Fills work.packed_rows.classes for the rows of `super`. Where there is a prefix, tails are measured first.
template <class T>
void quantize_centroids(const Plan& plan, const ScreeningPlan& screening, const SuperTile& super,
                        const Workspace& work);

}  // namespace tcm::cpu
