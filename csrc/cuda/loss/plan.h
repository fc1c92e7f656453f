// How a similarity matrix is gone through, and what memory that takes: plain arithmetic of the host.
//
// The matrix is cut into super-tiles, as much of it as the pool has bits for, one a pair and direction:
// 16,384 rows and columns in 64 MiB. A smaller pool means more super-tiles, hence more launches and more
// passes over P and Q, and the same result.
#pragma once

#include <cstdint>
#include <vector>

#include "decisions.h"

namespace tcm::cuda {

// What can be chosen: by default from the shape, in tests also otherwise.
struct Choices {
  int64_t pool_bytes;
  int list_most;       // up to so many pairs of a tile are taken one by one
  int max_candidates;  // candidates that the sample may have for the sweep to run
  enum { automatic, int8, full } screening;
};

struct Plan {
  int64_t rows, columns;
  int dim;
  bool is_self;
  bool screened;
  bool by_column;    // whether some super-tile is read by columns
  int code_dim;      // dim up to a multiple of kCodeStep, 0 where nothing is screened
  int edge;          // tiles along a super-tile
  int64_t programs;  // persistent blocks, two a multiprocessor
  int64_t partials;  // elements of partial sums: one a program, then one a block of lists
  std::vector<SuperTile> parts;

  // need_columns: whether P and Q of the columns' side are asked for.
  static Plan make(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool need_columns,
                   const Choices& choices, int multiprocessors);
};

// Places in one block of memory. What comes first is to be zero when the first kernel runs.
struct Workspace {
  int* samples;         // (kSamples,)
  int* has_dense_tile;  // one a super-tile
  int* not_finite;
  Partial partial;  // (plan.partials, 2) each
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

  // Places the arrays from `base` on, which may be null, and returns their bytes.
  int64_t carve(const Plan& plan, void* base);
};

}  // namespace tcm::cuda
