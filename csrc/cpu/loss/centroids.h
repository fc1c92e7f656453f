// Centroids: one code for all rows of a class in a block, so that one product serves all of these rows.
//
// Training pulls the rows of a class together, so they differ little from their mean. If c q is close to that
// mean, u_i = c q + ρ_i holds for each of them with a ρ_i that is longer than that of the row's own code, but
// still short; the certificate is the same (certificate.h). With four samples per class the product has a
// quarter of the size. A pair is undecided only where the product with the centroid comes within max ‖ρ_i‖
// (0.2 to 0.4 for a class of cosines 0.95 to 0.8) of the margin: few are, because most classes are unlike
// each other. With int8 it gets the product of the two rows' own codes, and where that does not prove it
// harmless, or without int8, an inner product. A sample decides whether centroids pay (probe.h). The rows of
// a class are adjacent within a block, because they are sorted by label.
#pragma once

#include <cstdint>

#include "cpu/simd/simd.h"
#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

// Writes the centroid of packed rows [first, last), a code in the format of plan.coding or without codes a
// row of the compute dtype, and returns its scale and error. `mean` has room for a row.
template <class T>
RowCode quantize_centroid(const Plan& plan, const PackedRows& packed, int64_t first, int64_t last, T* mean,
                          void* code);

// The number of classes per block of rows, summed over the blocks of `super`.
int64_t count_classes(const Plan& plan, const SuperTile& super, const Workspace& work);

// Fills work.packed_rows.centroids for the rows of `super`. With a prefix, it reads the tails of these rows.
template <class T>
void quantize_centroids(const Plan& plan, const ScreeningPlan& screening, const SuperTile& super,
                        const Workspace& work);

}  // namespace tcm::cpu
