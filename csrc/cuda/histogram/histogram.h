// The histogram of similarities by group: what host code sees of it, and its host arithmetic.
#pragma once

#include <cstdint>

#include "common/bins.h"
#include "cuda/loss/kernels.h"

namespace tcm::cuda {

// Ranges of groups and labels of a tile of rows or columns, which show that most tiles hold no special pair.
struct alignas(16) TileFacts {
  int32_t first_group, last_group;
  int32_t least_label, largest_label;
};

// One side of the pairs. Positions are in the order of groups, then labels.
struct HistogramSide {
  Side side;               // x, order, self_index, inverse and n
  const int32_t* group;    // (n,) by position, row of the tables
  const int32_t* rank;     // (n,) of the group among those of this side: 0, 0, 1, 1, 1, 2, ...
  const int32_t* label;    // (n,) numbered from 0, alike on both sides
  const TileFacts* tiles;  // (tiles,)
  int most_groups;         // the largest number in a tile
};

// The counts, zero at first. A pair of two groups counts for both, a pair within a group once.
struct HistogramTables {
  int64_t* positives;     // (groups, columns): pairs of one class, by the group of either end
  int64_t* negatives;     // (groups, columns): pairs of two classes, likewise
  int64_t* of_one_group;  // (2, columns): pairs within a group, positives and then negatives
  int columns;
};

// Finds the bin of most similarities by float32 arithmetic alone: the integer nearest to s * scale + offset,
// except where the rounding error could reach the middle between two integers.
struct BinFinder {
  float scale, offset;
  float clear;  // certain where nearer to the integer than this; negative where never certain
  int columns;  // of a table

  static BinFinder make(const Bins& bins);
};

// How a sweep is divided into tasks, each a tile of rows against chunk_tiles tiles of columns or fewer.
struct HistogramSweep {
  int row_tiles, column_tiles;
  int chunk_tiles;
  int tasks;
  int programs;  // persistent blocks
  int stages;    // copy buffers
  int counters;  // 32-bit words of counters in shared memory
  int weight;    // of a pair of two groups, for the row's group
  bool inside;   // whether pairs within a group are counted

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

// All of it. In the self case `columns` is `rows`. Writes edges (B + 3,) and, only where a norm is not
// finite, not_finite (1,).
void pair_histogram(const Device& device, Dtype dtype, Precision precision, const Bins& bins,
                    const HistogramSide& rows, const HistogramSide& columns, bool is_self, int64_t dim,
                    float* edges, int* not_finite, const HistogramTables& tables);

}  // namespace tcm::cuda
