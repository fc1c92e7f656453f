// One side of a super-tile as its tiles read it: unit rows in label order, their codes, their classes.
#pragma once

#include <cstdint>

namespace tcm::cpu {

// A sample's place after sorting by label.
struct LabelledRow {
  int64_t label;
  int64_t index;  // original row
};

// Rows of one class within a block that share a code; see centroids.h.
struct Centroids {
  int32_t* count;  // (super_tiles) of the block's classes; 0 if they are too many for this to pay
  int32_t* begin;  // (super_tiles, most_classes + 1) first row of each class within its block, and the end
  void* code;      // (super_tiles, most_classes, D) codes, or without those rows of the compute dtype
  float* scale;    // (super_tiles, most_classes)
  float* error;    // (super_tiles, most_classes)
  float* tail;     // (super_tiles, most_classes)
};

// One side of a super-tile, packed in label order. Blocks are the rows of one tile.
struct PackedRows {
  void* unit;         // (super_rows, D) unit rows, compute dtype
  double* block_sum;  // (super_tiles, D) sum of a block's unit rows
  void* code;         // (super_rows, code_dim) with plan.codes(), else none
  float* scale;       // (super_rows) of the codes
  float* error;       // (super_rows)
  float* tail;        // (super_rows) length of the unit row's columns beyond the screening's prefix
  Centroids classes;
};

}  // namespace tcm::cpu
