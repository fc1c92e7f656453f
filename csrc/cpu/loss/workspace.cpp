#include "workspace.h"

#include <algorithm>

#include "common/ceil_div.h"
#include "cpu/carver.h"

namespace tcm::cpu {

int64_t Workspace::scratch_elements(const Plan& plan) {
  return plan.tile_elements() + std::max(plan.tile * plan.chunk, ceil_div(plan.dim, 64) * 64);
}

int64_t Workspace::carve(const Plan& plan, void* base) {
  Carver carver(base);
  const auto take = [&](auto*& pointer, int64_t bytes) { carver.take(pointer, bytes); };
  const int64_t super = plan.super_edge, tile = plan.tile;
  const auto take_packed = [&](PackedRows& packed) {
    take(packed.unit, plan.super_rows() * plan.dim * plan.element);
    take(packed.block_sum, super * plan.dim * int64_t(sizeof(double)));
    take(packed.code, plan.super_rows() * plan.code_bytes());
    take(packed.scale, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    take(packed.error, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    take(packed.tail, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    const int64_t centroids = super * plan.max_centroids();
    take(packed.centroids.count, plan.screens ? super * int64_t(sizeof(int32_t)) : 0);
    take(packed.centroids.begin, plan.screens ? (centroids + super) * int64_t(sizeof(int32_t)) : 0);
    take(packed.centroids.code, centroids * plan.centroid_bytes());
    take(packed.centroids.scale, centroids * int64_t(sizeof(float)));
    take(packed.centroids.error, centroids * int64_t(sizeof(float)));
    take(packed.centroids.tail, centroids * int64_t(sizeof(float)));
  };
  const bool one_side = plan.self && super * tile >= plan.rows;
  take(row_order, plan.rows * int64_t(sizeof(LabelledRow)));
  if (plan.self) {
    col_order = row_order;
  } else {
    take(col_order, plan.columns * int64_t(sizeof(LabelledRow)));
  }
  take(same_begin, plan.rows * 8);
  take(same_end, plan.rows * 8);
  take(self_index, plan.rows * 8);
  take(position, plan.columns * 8);
  take_packed(packed_rows);
  if (one_side) {
    packed_columns = packed_rows;
  } else {
    take_packed(packed_columns);
  }
  take(bits, super * super * tile * plan.words() * 8);
  take(tile_sums, super * super * int64_t(sizeof(TileSums)));
  take(deferred, super * super * plan.chunks() * 2 * int64_t(sizeof(double)));
  take(scratch, plan.threads * scratch_elements(plan) * plan.element);
  return carver.used();
}

}  // namespace tcm::cpu
