// Counts the similarities of all pairs by group and bin, without the similarity matrix.
//
// Method: rows are sorted by group, so that a tile's rows and columns have few groups each. A task takes a
// super-tile of up to 4096 x 4096 pairs: it packs the unit rows, multiplies one tile at a time, turns its
// similarities into columns of the table (16 bits, one pass), and counts these twice while they are in cache:
// by rows for the groups of the rows, by columns for those of the columns. Counters have 32 bits, belong to
// one thread and fit into its cache. Integer atomics add row counters to the tables after each row of tiles,
// and column counters after the super-tile, so the result does not depend on the order of tasks. In the self
// case only super-tiles and tiles on and above the diagonal are visited, and counts are doubled.
//
// Cost, N x N self case: N² D flops (half of a bare x·xᵀ), then per pair above the diagonal 1.5 vector
// instructions of float64 per lane and two increments in L1 or L2. Memory: per thread 2 x 8 MiB of unit rows,
// a tile (1 MiB in float32) and its columns (0.5 MiB), and 8 (B + 2) bytes per group of a super-tile's edge.
//
// Measured (Xeon, AVX-512, 2 threads, D = 512, B = 2000, 5.5 rows per group), relative to the bare product of
// the full matrix in tiles: 0.78 at N = 60,000, 0.88 at 16,384, and 1.14 at 4,096, where clearing and adding
// counters serves few pairs. The floor is 0.5. With all pairs in one bin 0.88; with one group per row 1.3.
#include "pair_histogram.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "common/ceil_div.h"
#include "cpu/simd/simd.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kTile = 512;
constexpr int64_t kPackBytes = int64_t(8) << 20;  // unit rows of one edge: a share of the last-level cache
constexpr int64_t kMostSuperTiles = 8;
constexpr int64_t kTasksPerThread = 4;  // so that uneven tasks balance
constexpr int64_t kStrip = 64;          // rows counted together by columns, while in L1

// Counters for the groups of rows [begin, end) of a side. Per group: the columns of negatives, those of
// positives, and one for pairs that do not count.
class Counters {
 public:
  Counters(const HistogramSide& side, const Bins& bins, uint32_t* memory)
      : side_(side), columns_(bins.columns()), memory_(memory) {}

  static int64_t stride(const Bins& bins) { return 2 * int64_t(bins.columns()) + 1; }

  void begin(int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    const int64_t groups = side_.rank[end - 1] - side_.rank[begin] + 1;
    std::fill_n(memory_, groups * (2 * columns_ + 1), 0u);
  }

  uint32_t* of(int64_t row) const {
    return memory_ + int64_t(side_.rank[row] - side_.rank[begin_]) * (2 * columns_ + 1);
  }

  // Adds the counters to the tables, and to `pooled` unless it is null.
  void flush(const HistogramTables& tables, int64_t weight, int64_t* pooled) const {
    for (int64_t row = begin_; row < end_; ++row) {
      if (row > begin_ && side_.rank[row] == side_.rank[row - 1]) continue;
      const uint32_t* counts = of(row);
      const int64_t at = int64_t(side_.group[row]) * columns_;
      flush_sign(counts, tables.negatives + at, weight, pooled == nullptr ? nullptr : pooled + columns_);
      flush_sign(counts + columns_, tables.positives + at, weight, pooled);
    }
  }

 private:
  void flush_sign(const uint32_t* counts, int64_t* table, int64_t weight, int64_t* pooled) const {
    for (int64_t k = 0; k < columns_; ++k) {
      if (counts[k] == 0) continue;
      const int64_t more = weight * int64_t(counts[k]);
      __atomic_fetch_add(table + k, more, __ATOMIC_RELAXED);
      if (pooled != nullptr) pooled[k] += more;
    }
  }

  const HistogramSide& side_;
  int64_t columns_;
  uint32_t* memory_;
  int64_t begin_ = 0, end_ = 0;
};

// Pointers into one thread's part of the workspace.
template <class T>
struct Scratch {
  T* rows;            // (super_rows, D) unit rows
  T* columns;         // (super_rows, D)
  T* buffer;          // (D) a row in the compute dtype
  T* similarities;    // (kTile, kTile)
  uint16_t* bins;     // (kTile, kTile) columns of the table
  uint32_t* of_rows;  // counters
  uint32_t* of_columns;
  int64_t* pooled;  // (2, B + 2)

  int64_t carve(const HistogramPlan& plan, const Bins& bins_, int64_t most_groups, char* base) {
    int64_t used = 0;
    const auto take = [&](auto*& pointer, int64_t count) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
      used += ceil_div(count * int64_t(sizeof(*pointer)), 64) * 64;
    };
    take(rows, plan.super_rows() * plan.dim);
    take(columns, plan.super_rows() * plan.dim);
    take(buffer, plan.dim);
    take(similarities, kTile * kTile);
    take(bins, kTile * kTile);
    take(of_rows, std::min(most_groups, kTile) * Counters::stride(bins_));
    take(of_columns, most_groups * Counters::stride(bins_));
    take(pooled, 2 * int64_t(bins_.columns()));
    return used;
  }
};

template <class T>
void pack(const HistogramSide& side, int64_t begin, int64_t end, T* buffer, T* unit) {
  const Simd<T>& loops = simd<T>();
  const int64_t dim = side.raw.dim;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = load_row<T>(side.raw, side.order[r], buffer);
    const double norm = std::sqrt(loops.squared_norm(x, dim));
    loops.scale(x, 1.0 / std::max(norm, kNormFloor), unit + (r - begin) * dim, dim);
  }
}

// Rows [begin, end) of a side.
struct Span {
  int64_t begin, end;

  static Span of(int64_t part, int64_t edge, int64_t total) {
    return {part * edge, std::min(total, (part + 1) * edge)};
  }
  int64_t size() const { return end - begin; }
};

// Whether a row of span i and a column of span j may have the same number, where both are sorted by it.
bool may_meet(const int32_t* rows, Span i, const int32_t* columns, Span j) {
  return rows[i.begin] <= columns[j.end - 1] && columns[j.begin] <= rows[i.end - 1];
}

template <class T>
class Counting {
 public:
  Counting(const HistogramPlan& plan, const Bins& bins, const HistogramSide& rows,
           const HistogramSide& columns, const int32_t* self_index, bool labels_sorted,
           const Scratch<T>& scratch, const HistogramTables& tables)
      : plan_(plan),
        bins_(bins),
        rows_(rows),
        columns_(columns),
        self_index_(self_index),
        labels_sorted_(labels_sorted),
        scratch_(scratch),
        tables_(tables),
        of_rows_(rows, bins, scratch.of_rows),
        of_columns_(columns, bins, scratch.of_columns) {}

  void super_tile(int64_t a, int64_t b) {
    const Span rows = Span::of(a, plan_.super_rows(), plan_.rows);
    const Span columns = Span::of(b, plan_.super_rows(), plan_.columns);
    const bool diagonal = plan_.self && a == b;
    pack(rows_, rows.begin, rows.end, scratch_.buffer, scratch_.rows);
    if (!diagonal) pack(columns_, columns.begin, columns.end, scratch_.buffer, scratch_.columns);
    const T* of_columns = diagonal ? scratch_.rows : scratch_.columns;
    const int64_t weight = plan_.self ? 2 : 1;
    of_columns_.begin(columns.begin, columns.end);
    for (int64_t i = rows.begin; i < rows.end; i += kTile) {
      const Span tile_rows{i, std::min(rows.end, i + kTile)};
      of_rows_.begin(tile_rows.begin, tile_rows.end);
      for (int64_t j = diagonal ? i : columns.begin; j < columns.end; j += kTile) {
        const Span tile_columns{j, std::min(columns.end, j + kTile)};
        multiply(scratch_.rows + (i - rows.begin) * plan_.dim, tile_rows.size(),
                 of_columns + (j - columns.begin) * plan_.dim, tile_columns.size());
        count(tile_rows, tile_columns, diagonal && i == j);
      }
      of_rows_.flush(tables_, weight, scratch_.pooled);
    }
    of_columns_.flush(tables_, weight, nullptr);
  }

 private:
  void multiply(const T* x, int64_t rows, const T* r, int64_t columns) {
    const Matrix<const T> a{x, rows, plan_.dim, plan_.dim}, b{r, columns, plan_.dim, plan_.dim};
    matmul<T>(a, b.transposed(), {scratch_.similarities, rows, columns, kTile});
  }

  void count(Span rows, Span columns, bool diagonal) {
    find_bins(rows, columns, diagonal);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const uint16_t* bins = bins_of(i - rows.begin);
      uint32_t* counts = of_rows_.of(i);
      for (int64_t j = 0; j < columns.size(); ++j) ++counts[bins[j]];
    }
    // A pair within one group is already counted by rows. Sorted by group, few tiles have such pairs.
    if (may_meet(rows_.group, rows, columns_.group, columns)) {
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        simd<T>().set_where_equal(columns_.group + columns.begin, rows_.group[i], nowhere(), columns.size(),
                                  bins_of(i - rows.begin));
      }
    }
    for (int64_t strip = 0; strip < rows.size(); strip += kStrip) {
      const int64_t last = std::min(rows.size(), strip + kStrip);
      for (int64_t j = columns.begin; j < columns.end;) {
        const int64_t first = j;
        uint32_t* counts = of_columns_.of(j);
        while (j < columns.end && columns_.rank[j] == columns_.rank[first]) ++j;
        for (int64_t i = strip; i < last; ++i) {
          const uint16_t* bins = bins_of(i) + (first - columns.begin);
          for (int64_t k = 0; k < j - first; ++k) ++counts[bins[k]];
        }
      }
    }
  }

  void find_bins(Span rows, Span columns, bool diagonal) {
    const bool same = !labels_sorted_ || may_meet(rows_.label, rows, columns_.label, columns);
    for (int64_t i = 0; i < rows.size(); ++i) {
      uint16_t* bins = bins_of(i);
      simd<T>().bin_columns(scratch_.similarities + i * kTile, columns.size(), bins_, bins);
      if (same) {
        simd<T>().add_where_equal(columns_.label + columns.begin, rows_.label[rows.begin + i],
                                  uint16_t(bins_.columns()), columns.size(), bins);
      }
      if (diagonal) std::fill_n(bins, i + 1, nowhere());
      if (self_index_ == nullptr) continue;
      const int64_t self_index = self_index_[rows.begin + i];
      if (self_index >= columns.begin && self_index < columns.end)
        bins[self_index - columns.begin] = nowhere();
    }
  }

  uint16_t* bins_of(int64_t i) const { return scratch_.bins + i * kTile; }
  uint16_t nowhere() const { return uint16_t(2 * bins_.columns()); }

  const HistogramPlan& plan_;
  const Bins& bins_;
  const HistogramSide& rows_;
  const HistogramSide& columns_;
  const int32_t* self_index_;
  bool labels_sorted_;
  const Scratch<T>& scratch_;
  const HistogramTables& tables_;
  Counters of_rows_, of_columns_;
};

}  // namespace

HistogramPlan HistogramPlan::make(int64_t rows, int64_t columns, int64_t dim, bool self, int64_t element,
                                  int64_t threads) {
  HistogramPlan plan{rows, columns, dim, self, element, threads, 1};
  const int64_t row_tiles = ceil_div(rows, kTile), column_tiles = ceil_div(columns, kTile);
  const int64_t fits = kPackBytes / (kTile * std::max<int64_t>(dim, 1) * element);
  const double pairs = double(row_tiles) * double(column_tiles) / (self ? 2 : 1);
  const double balanced = std::sqrt(pairs / double(kTasksPerThread * threads));
  plan.super_edge = std::clamp<int64_t>(std::min<int64_t>(fits, int64_t(balanced)), 1, kMostSuperTiles);
  return plan;
}

int64_t HistogramPlan::super_rows() const { return super_edge * kTile; }

int64_t HistogramPlan::workspace_bytes(const Bins& bins, int64_t most_groups) const {
  Scratch<float> narrow;
  Scratch<double> wide;
  return threads * (element == sizeof(double) ? wide.carve(*this, bins, most_groups, nullptr)
                                              : narrow.carve(*this, bins, most_groups, nullptr));
}

template <class T>
void pair_histogram(const HistogramPlan& plan, const Bins& bins, const HistogramSide& rows,
                    const HistogramSide& columns, const int32_t* self_index, int64_t most_groups,
                    char* workspace, const HistogramTables& tables) {
  std::vector<Scratch<T>> scratch(plan.threads);
  const int64_t bytes = plan.workspace_bytes(bins, most_groups) / plan.threads;
  for (int64_t worker = 0; worker < plan.threads; ++worker) {
    scratch[worker].carve(plan, bins, most_groups, workspace + worker * bytes);
    std::fill_n(scratch[worker].pooled, 2 * int64_t(bins.columns()), int64_t(0));
  }
  const bool labels_sorted = std::is_sorted(rows.label, rows.label + plan.rows) &&
                             std::is_sorted(columns.label, columns.label + plan.columns);
  const int64_t row_parts = ceil_div(plan.rows, plan.super_rows());
  const int64_t column_parts = ceil_div(plan.columns, plan.super_rows());
  for_each_task(row_parts * column_parts, plan.threads, [&](int64_t task, int64_t worker) {
    const int64_t a = task / column_parts, b = task % column_parts;
    if (plan.self && b < a) return;
    Counting<T>(plan, bins, rows, columns, self_index, labels_sorted, scratch[worker], tables)
        .super_tile(a, b);
  });
  for (const Scratch<T>& each : scratch) {
    for (int64_t k = 0; k < 2 * int64_t(bins.columns()); ++k) tables.pooled[k] += each.pooled[k];
  }
}

#define TCM_INSTANTIATE(T)                                                                 \
  template void pair_histogram<T>(const HistogramPlan&, const Bins&, const HistogramSide&, \
                                  const HistogramSide&, const int32_t*, int64_t, char*,    \
                                  const HistogramTables&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
