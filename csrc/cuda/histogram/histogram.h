// How many pairs of each group have which similarity: what host code sees of it, and its plain arithmetic.
#pragma once

#include <cstdint>

#include "common/bins.h"
#include "cuda/loss/kernels.h"

namespace tcm::cuda {

// What a tile's rows, or columns, are of: by it most tiles show that no pair in them is a special one.
struct alignas(16) TileFacts {
  int32_t first_group, last_group;
  int32_t least_label, largest_label;
};

// One side of the pairs. A position is a place in the order of groups, then labels.
struct HistogramSide {
  Side side;               // x, order, self_index, inverse and n
  const int32_t* group;    // (n,) by position, row of the tables
  const int32_t* rank;     // (n,) of the group among those of this side: 0, 0, 1, 1, 1, 2, ...
  const int32_t* label;    // (n,) numbered for both sides alike, from 0
  const TileFacts* tiles;  // (tiles,)
  int most_groups;         // in a tile
};

// What is counted; zeros at first.
struct HistogramTables {
  int64_t* positives;     // (groups, columns): every pair of one class for the groups of both its ends
  int64_t* negatives;     // (groups, columns): likewise of two classes
  int64_t* of_one_group;  // (2, columns): positives, then negatives whose ends are of one group, once
  int columns;
};

// The bin of most similarities by float32 arithmetic alone: it is the integer nearest to s * scale + offset,
// unless that is nearer to the middle between two integers than rounding can be off.
struct BinFinder {
  float scale, offset;
  float clear;  // nearer to an integer than that, it is certain; negative where it never is
  int columns;  // of a table

  static BinFinder make(const Bins& bins);
};

// How rows meet columns: each task is a tile of rows against some tiles of columns.
struct HistogramSweep {
  int row_tiles, column_tiles;
  int chunk_tiles;  // of columns, of a task
  int tasks;
  int programs;  // persistent blocks
  int stages;    // buffers of rows on their way
  int counters;  // words of shared memory
  int weight;    // how often a pair of two groups counts for the row's group
  bool inside;   // whether pairs within a group count

  static HistogramSweep make(const Device& device, const HistogramSide& rows, const HistogramSide& columns,
                             int table_columns, int weight, bool inside);
};

// Where each column begins: (B + 3,) float32.
void launch_bin_edges(const Device& device, const Bins& bins, float* edges);

void launch_histogram(const Device& device, Dtype dtype, Precision precision, const HistogramSide& rows,
                      const HistogramSide& columns, const Shape& shape, const BinFinder& finder,
                      const float* edges, const HistogramTables& tables, const HistogramSweep& sweep);

// Shared memory of a block besides its buffers and counters.
int histogram_head_bytes();

// All of it: `columns` is `rows` in the self case. edges: (B + 3,), not_finite: (1,), to be written.
void pair_histogram(const Device& device, Dtype dtype, Precision precision, const Bins& bins,
                    const HistogramSide& rows, const HistogramSide& columns, bool is_self, int64_t dim,
                    float* edges, int* not_finite, const HistogramTables& tables);

}  // namespace tcm::cuda
