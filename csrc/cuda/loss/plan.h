// How a similarity matrix is divided, and the memory that takes: host arithmetic.
//
// The matrix is cut into super-tiles, each as large as the pool has bits for, one bit per pair and direction:
// 16,384 rows and columns in 64 MiB. A smaller pool means more super-tiles, hence more launches and more
// passes over P and Q, with the same result.
#pragma once

#include <cstdint>
#include <vector>

#include "decisions.h"

namespace tcm::cuda {

// The caller's choices. `automatic` screens large matrices, `int8` all that can be screened, `full` none.
struct Choices {
  int64_t pool_bytes;
  int list_most;       // at most this many pairs of a tile are taken one by one
  int max_candidates;  // largest number of candidates of the sample for the sweep to run
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
  int64_t programs;  // persistent blocks, at most two per multiprocessor
  int64_t partials;  // elements of partial sums: one per program, then one per block of lists
  std::vector<SuperTile> parts;

  // need_columns: whether P and Q of the columns' side are wanted.
  static Plan make(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool need_columns,
                   const Choices& choices, int multiprocessors);
};

// Arrays in one block of memory. The first `zeroed` bytes have to be zero when the first kernel runs.
struct Workspace {
  int* samples;         // (kSamples,)
  int* has_dense_tile;  // one per super-tile
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

  // Places the arrays from `base` on, which may be null, and returns their size in bytes.
  int64_t carve(const Plan& plan, void* base);
};

}  // namespace tcm::cuda
