// Where the working memory of a call lies.
#pragma once

#include <cstdint>

#include "cpu/simd/simd.h"
#include "packed_rows.h"
#include "plan.h"

namespace tcm::cpu {

// Pointers into one allocation. `carve` with a null base measures: the return value is its size.
struct Workspace {
  LabelledRow* row_order;  // (N) rows of emb, sorted by label
  LabelledRow* col_order;  // (M) the same for the reference set; row_order itself in the self case
  int64_t* same_begin;     // (N) sorted columns [same_begin, same_end) have the row's label
  int64_t* same_end;
  int64_t* self_index;  // (N) the sorted column that is the row's own sample, -1 if none
  int64_t* position;    // (M) where each reference row stands after sorting
  PackedRows packed_rows;
  PackedRows packed_columns;  // the same memory as packed_rows where both sides are one
  uint64_t* bits;             // (super_tiles², tile, words) hard pairs
  TileSums* tile_sums;        // (super_tiles²)
  double* deferred;           // (super_tiles², chunks, 2) sums of similarities found while adding up
  // Per thread: a tile of similarities or of products of codes, or a pattern's tables; and rows to be added.
  void* scratch;

  int64_t carve(const Plan& plan, void* base);

  template <class T>
  T* tile_scratch(const Plan& plan, int64_t worker) const {
    return static_cast<T*>(scratch) + worker * scratch_elements(plan);
  }
  template <class T>
  T* row_scratch(const Plan& plan, int64_t worker) const {
    return tile_scratch<T>(plan, worker) + plan.tile_elements();
  }
  static int64_t scratch_elements(const Plan& plan);
};

}  // namespace tcm::cpu
