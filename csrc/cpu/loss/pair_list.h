// The loss over pairs that are listed one by one, as a miner has chosen them.
//
// The pairs of a sign are sorted by anchor, a counting sort that keeps their order, and a row's partners are
// gathered: inner products with all, then the hard ones into P or Q. For the other ends they are sorted by
// partner, and products are computed again, bit for bit the same, so that both ends decide alike. A row belongs
// to one task, and adds its partners in the order of the list: results do not depend on the threads.
//
// Cost: per pair and end one inner product of D elements, one addition of D if it is hard, and 20 bytes of sort.
// Memory: the unit rows of both sides, of which only those of listed rows are touched, and 4 bytes per pair.
// Measured (Xeon, 2 threads, forward and backward; benchmarks/results/pytorch-metric-learning-*.json): 9 million
// pairs of 3,000 rows, D = 256, take 0.5 s and 45 MB, gradient included. At N = 512 all pairs cost
// five times what they cost the kernel that need not list them.
#pragma once

#include <cstdint>

#include "accumulate.h"
#include "common/hard_pair.h"
#include "prepare.h"

namespace tcm::cpu {

// The pairs (anchors[k], partners[k]) of one sign.
struct ListedPairs {
  const int64_t* anchors;
  const int64_t* partners;
  int64_t count;
};

// What one sign comes to; `listed` is the number of its pairs, without repeated ones where these do not count.
struct ListedSums {
  double similarity_sum;
  int64_t hard;
  int64_t listed;
};

struct PairListResult {
  bool finite;  // whether all norms are
  ListedSums positive;
  ListedSums negative;
};

// Scratch of one call.
struct PairListWorkspace {
  void* row_units;       // (rows, D) in the compute dtype
  void* column_units;    // (columns, D), those of the rows in the self case
  uint8_t* rows_listed;  // (rows) whether a pair names the row
  uint8_t* columns_listed;
  int64_t* begin;    // (max(rows, columns) + 1) where the pairs of each row begin, once sorted
  int32_t* partner;  // (pairs) the partners in that order
  ListedSums* of_tasks;

  // Lays it out from `base` on; returns the bytes needed. `pairs` is the larger number of both signs.
  int64_t carve(int64_t rows, int64_t columns, bool is_self, int64_t dim, int64_t element, int64_t pairs,
                void* base);
};

// P and Q are added to where they are not null. In the self case, where `is_self`, columns are the rows, and
// `of_columns` is ignored: P and Q of the rows get both ends. Throws std::out_of_range for a number that names
// no row.
template <class T>
PairListResult pair_list_sums(const RawRows& rows, const RawRows& columns, bool is_self,
                              const ListedPairs& positives, const ListedPairs& negatives,
                              Margins<double> margins, bool deduplicate, int64_t threads,
                              const PairListWorkspace& work, PartnerSums<T> of_rows,
                              PartnerSums<T> of_columns);

}  // namespace tcm::cpu
