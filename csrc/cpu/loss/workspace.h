// The working memory of a call.
#pragma once

#include <cstdint>

#include "cpu/simd/simd.h"
#include "packed_rows.h"
#include "plan.h"

namespace tcm::cpu {

// Pointers into one allocation. `carve` sets them and returns its size; with a null base it only measures.
struct Workspace {
  LabelledRow* row_order;  // (N) rows of emb, sorted by label
  LabelledRow* col_order;  // (M) the same for the reference set; row_order itself in the self case
  int64_t* same_begin;     // (N) sorted columns [same_begin, same_end) have the row's label
  int64_t* same_end;
  int64_t* self_index;  // (N) the sorted column that is the row's own sample, -1 if none or in the self case
  int64_t* position;    // (M) the sorted column of each reference row
  PackedRows packed_rows;
  PackedRows packed_columns;  // with memory of its own, except in the self case with a single super-tile
  uint64_t* bits;             // (super_edge², tile, words) hard pairs; marked pairs during screening
  TileSums* tile_sums;        // (super_edge²)
  double* deferred;           // (super_edge², chunks, 2) sums of similarities that `accumulate` finds
  // Per thread, tile_scratch: similarities or products of a tile, products by centroids, or a pattern and its
  // tables; row_scratch: rows to be added, the bit map of open pairs, a row being loaded, or a class's mean.
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
