// Counts the pairs of each group by similarity: the histogram that all of evaluation reads.
#pragma once

#include <cstdint>

#include "common/bins.h"
#include "cpu/loss/prepare.h"

namespace tcm::cpu {

// One side of the pairs. All but the embeddings are in the order of the groups.
struct HistogramSide {
  RawRows raw;
  const int64_t* order;  // (rows) original rows, sorted by group, then label
  const int32_t* group;  // (rows) the row of the tables
  const int32_t* rank;   // (rows) index of the group among those of this side: 0, 0, 1, 1, 1, 2, ...
  const int32_t* label;  // (rows) class, numbered alike on both sides
};

// The sizes of a call, and of the super-tiles; a task counts one super-tile.
struct HistogramPlan {
  int64_t rows, columns, dim;
  bool self;
  int64_t element;  // bytes of the compute dtype
  int64_t threads;
  int64_t super_edge;  // tiles along the edge of a super-tile

  static HistogramPlan make(int64_t rows, int64_t columns, int64_t dim, bool self, int64_t element,
                            int64_t threads);
  int64_t super_rows() const;
  // For all threads, where the rows of no super-tile's edge have more than `most_groups` groups.
  int64_t workspace_bytes(const Bins& bins, int64_t most_groups) const;
};

// positives and negatives (groups, B + 2), pooled (2, B + 2) with positives first; all zero at the start.
struct HistogramTables {
  int64_t* positives;
  int64_t* negatives;
  int64_t* pooled;
};

// `self_index`: (rows) the column that is the row's own sample, -1 if none. It may be null where no row is
// also a column, and is null in the self case, where `columns` is `rows`. T is the compute dtype.
template <class T>
void pair_histogram(const HistogramPlan& plan, const Bins& bins, const HistogramSide& rows,
                    const HistogramSide& columns, const int32_t* self_index, int64_t most_groups,
                    char* workspace, const HistogramTables& tables);

}  // namespace tcm::cpu
