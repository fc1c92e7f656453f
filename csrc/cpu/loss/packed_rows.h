// One side of a super-tile as its tiles read it: unit rows in label order, their codes, their centroids.
#pragma once

#include <cstdint>

namespace tcm::cpu {

// A row after sorting by label.
struct LabelledRow {
  int64_t label;
  int64_t index;  // original row
};

// The codes that the rows of one class within a block share; see centroids.h. Empty unless plan.screens.
struct Centroids {
  int32_t* count;  // (super_edge) classes of a block; 0 where they are too many for centroids to pay
  int32_t* begin;  // (super_edge, max_centroids + 1) first row of each class within its block, and the end
  void* code;      // (super_edge, max_centroids, code_dim) codes; without codes (..., D) rows, compute dtype
  float* scale;    // (super_edge, max_centroids)
  float* error;    // (super_edge, max_centroids)
  float* tail;     // (super_edge, max_centroids) largest tail of the class's rows; written with a prefix only
};

// One side of a super-tile, packed in label order. code, scale, error and tail exist only with plan.codes().
struct PackedRows {
  void* unit;         // (super_rows, D) unit rows, compute dtype
  double* block_sum;  // (super_edge, D) sum of a block's unit rows
  void* code;         // (super_rows, code_dim)
  float* scale;       // (super_rows) of the codes
  float* error;       // (super_rows) of the codes
  float* tail;        // (super_rows) of the unit rows; written with a prefix only
  Centroids centroids;
};

}  // namespace tcm::cpu
