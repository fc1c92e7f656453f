// The plan of a forward, as tcm_kernels/backends/gpu/plan.py makes it, and the memory that it takes.
#pragma once

#include <cstdint>
#include <vector>

#include "decisions.h"

namespace tcm::cuda {

struct Plan {
  int64_t rows, columns;
  int dim;
  bool is_self;
  bool screened;
  bool by_column;      // whether some super-tile is read by columns
  int edge;            // most tiles along a super-tile
  int64_t programs;    // persistent blocks
  int list_most;       // at most this many pairs of a tile are taken one by one
  int max_candidates;  // largest number of candidates of the sample for the sweep to run
  std::vector<SuperTile> parts;

  // dim up to a multiple of kCodeStep, 0 where nothing is screened.
  int code_dim() const;
  // Tiles of rows and of columns in the largest super-tile.
  int64_t row_tiles() const;
  int64_t column_tiles() const;
  // Elements of partial sums: one per program, then one per block of lists.
  int64_t partials() const;
  // What is wrong with it, for the matrix that it is of; null if nothing is.
  const char* fault() const;
};

// Arrays in one block of memory. The first `zeroed` bytes have to be zero when the first kernel runs.
struct Workspace {
  int* samples;         // (kSamples,)
  int* has_dense_tile;  // one per super-tile
  int* not_finite;
  Partial partial;  // (plan.partials(), 2) each
  int64_t zeroed;   // bytes up to here

  struct OfSide {
    int32_t* same_begin;  // (n,)
    int32_t* same_end;    // (n,)
    float* inverse;       // (n,)
    float* own_scale;     // (n,)
    int8_t* code;         // (tiles * kTile, code_dim)
    float* error;         // (tiles * kTile,)
    float* scale;         // (tiles,)
  } of_rows, of_columns;  // one and the same in the self case
  uint32_t* directory;
  uint32_t* row_bits;
  uint32_t* column_bits;  // null where nothing is read by columns
  float* block_sums;

  // Places the arrays from `base` on, which may be null, and returns their size in bytes.
  int64_t carve(const Plan& plan, void* base);
};

}  // namespace tcm::cuda
