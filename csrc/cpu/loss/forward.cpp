// The loss over all pairs on a CPU, without the similarity matrix.
//
// Method: prepare (sort rows by label, pack unit rows and their codes), probe (choose how to screen), then
// for each super-tile of up to 8192 x 8192 pairs: screen (mark the hard pairs, one bit each) and accumulate
// (add hard pairs into P and Q). In the self case only tiles on and above the diagonal are visited, and each
// pair counts twice. The backward needs no pairs: it takes g_i = w+ P_i + w- Q_i through the normalisation.
//
// Cost, N x N self case in float32 (a bare x·xᵀ takes 2 N² D flops: 1 U). Half of the matrix is N² D int8
// operations: 0.13 U with VNNI, which has four times the float32 rate. A prefix of the columns (probe.h)
// saves a part of that, and one centroid for a class of k rows (centroids.h) all but 1/k. Without int8 units
// it is N² D flops, 0.5 U, or 0.5/k. Then one comparison per product while the tile is in cache, 4 D bytes
// read per hard pair and direction, and P and Q written once. At half density, a product with the pattern in
// each direction: additions only, a quarter of the 2 N² D flops that two float32 products would take. Memory:
// P and Q, packed rows of at most 16 MiB and their codes for each of two sides, 8 MiB of bits, and per thread
// one tile and one product with a pattern (2 MiB at D >= 512).
//
// Measured (Xeon, AVX512-VNNI without AMX, 2 threads, N = 8192, D = 512, 4 rows per class, in U, forward /
// forward and backward): hard density 1e-3 0.12 / 0.18, 1e-2 0.29 / 0.45 to 0.55, a half 0.60 / 1.14,
// 1 0.29 / 0.38. Without centroids 4e-4 takes 0.20 / 0.24. With 16-bit instead of VNNI products of undecided
// pairs 1e-3 takes 0.16 / 0.21. With float32 products for patterns a half takes 1.80.
#include "forward.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "common/ceil_div.h"

#include "centroids.h"
#include "probe.h"
#include "screen.h"

namespace tcm::cpu {
namespace {

template <class T>
void fill_rows(PartnerSums<T> sums, int64_t rows, int64_t dim, int64_t threads, T value) {
  if (sums.positive == nullptr) return;
  const int64_t per_task = std::max<int64_t>(1, (int64_t(1) << 18) / std::max<int64_t>(dim, 1));
  for_each_task((rows + per_task - 1) / per_task, threads, [&](int64_t task, int64_t) {
    const int64_t begin = task * per_task * dim, end = std::min(rows, (task + 1) * per_task) * dim;
    std::fill(sums.positive + begin, sums.positive + end, value);
    std::fill(sums.negative + begin, sums.negative + end, value);
  });
}

// `lap` adds the time since the previous lap to a stage.
class Stopwatch {
 public:
  void lap(double& stage) {
    const auto now = std::chrono::steady_clock::now();
    stage += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Both sides of the super-tile that is being worked on, packed. A side that the next super-tile shares is
// kept.
template <class T>
class PackedSides {
 public:
  PackedSides(const Plan& plan, const RawRows& rows, const RawRows& columns, Workspace& work)
      : plan_(plan),
        raw_rows_(rows),
        raw_columns_(columns),
        work_(work),
        rows_(work.packed_rows),
        columns_(work.packed_columns) {}

  // The rows of super-tiles (i, *). In the self case they may be packed already, as columns.
  void take_rows(int64_t i, const ScreeningPlan& screening) {
    if (plan_.self && columns_held_ == i) {
      std::swap(rows_, columns_);
      columns_held_ = -1;
    } else {
      pack(raw_rows_, work_.row_order, i, screening, rows_);
    }
    work_.packed_rows = rows_;
  }

  // The columns of super-tiles (*, j). On the diagonal they are the rows.
  void take_columns(int64_t j, bool diagonal, const ScreeningPlan& screening) {
    work_.packed_columns = diagonal ? rows_ : columns_;
    if (diagonal || columns_held_ == j) return;
    pack(raw_columns_, work_.col_order, j, screening, columns_);
    columns_held_ = j;
  }

  // Whether the norms of all rows packed so far are finite.
  bool finite() const { return finite_; }

 private:
  void pack(const RawRows& raw, const LabelledRow* order, int64_t super, const ScreeningPlan& screening,
            const PackedRows& packed) {
    const int64_t begin = super * plan_.super_rows(), end = std::min(raw.rows, begin + plan_.super_rows());
    finite_ &= pack_rows<T>(plan_, raw, order, begin, end, work_, packed);
    if (screening.has_prefix(plan_)) measure_tails<T>(plan_, screening, end - begin, packed);
  }

  const Plan& plan_;
  const RawRows& raw_rows_;
  const RawRows& raw_columns_;
  Workspace& work_;
  PackedRows rows_, columns_;
  int64_t columns_held_ = -1;
  bool finite_ = true;
};

// The column of the super-tile at a step of row i, in an order that reuses packed rows: in the self case the
// last columns of a row of super-tiles are the rows of the next one; otherwise the next one begins with these
// columns.
int64_t column_at_step(const Plan& plan, int64_t i, int64_t step, int64_t super_columns) {
  const int64_t backwards = super_columns - 1 - step;
  if (plan.self) return step == i ? i : backwards + i + 1;
  return i % 2 == 0 ? step : backwards;
}

// The probe, and what the screening that it chose needs of the first super-tile, which was packed before.
template <class T>
ScreeningPlan probe_first(const Plan& plan, const SuperTile& super, Margins<double> margins, bool can_defer,
                          const Workspace& work, Stopwatch& watch, StageTimes& times) {
  const ScreeningPlan screening = probe<T>(plan, super, margins, can_defer, work);
  watch.lap(times.probe);
  if (screening.has_prefix(plan)) {
    measure_tails<T>(plan, screening, super.rows(plan), work.packed_rows);
    if (!super.diagonal) measure_tails<T>(plan, screening, super.columns(plan), work.packed_columns);
  }
  return screening;
}

void add_tiles(const SuperTile& super, const Workspace& work, TileSums& total) {
  for (int64_t a = 0; a < super.row_count; ++a) {
    for (int64_t b = 0; b < super.col_count; ++b) {
      if (!super.holds(a, b)) continue;
      const TileSums& tile = work.tile_sums[super.slot(a, b)];
      for (const bool positive : {true, false}) {
        total.of(positive).count += tile.of(positive).count;
        total.of(positive).similarity_sum += tile.of(positive).similarity_sum;
      }
    }
  }
}

ForwardResult result_of(const Plan& plan, const TileSums& total, Margins<double> margins,
                        const StageTimes& times) {
  const int64_t ordered = plan.self ? 2 : 1;
  const auto& [positive, negative] = total;
  const double pulls = margins.plus * double(positive.count) - positive.similarity_sum;
  const double pushes = negative.similarity_sum - margins.minus * double(negative.count);
  return {ordered * std::max(pulls, 0.0), ordered * std::max(pushes, 0.0), ordered * positive.count,
          ordered * negative.count, times};
}

}  // namespace

template <class T>
ForwardResult forward(const Plan& plan, const RawRows& emb, const int64_t* labels, const RawRows& ref,
                      const int64_t* ref_labels, int64_t self_offset, Margins<double> margins, bool add,
                      Workspace& work, PartnerSums<T> of_emb, PartnerSums<T> of_ref) {
  Stopwatch watch;
  StageTimes times;
  const auto fill = [&](T value) {
    fill_rows(of_emb, plan.rows, plan.dim, plan.threads, value);
    if (!plan.self) fill_rows(of_ref, plan.columns, plan.dim, plan.threads, value);
  };
  order_by_label(plan, labels, ref_labels, self_offset, work);
  if (!add) fill(T(0));
  watch.lap(times.order);

  TileSums total{};
  ScreeningPlan screening{plan.codes(), false, plan.dim};
  const bool can_defer = of_emb.positive != nullptr;
  PackedSides<T> sides(plan, emb, plan.self ? emb : ref, work);
  const int64_t super_rows = ceil_div(plan.rows, plan.super_rows());
  const int64_t super_columns = ceil_div(plan.columns, plan.super_rows());
  for (int64_t i = 0; i < super_rows; ++i) {
    sides.take_rows(i, screening);
    const int64_t first_step = plan.self ? i : 0;
    for (int64_t step = first_step; step < super_columns; ++step) {
      const int64_t j = column_at_step(plan, i, step, super_columns);
      const SuperTile super = SuperTile::at(plan, i, j);
      sides.take_columns(j, super.diagonal, screening);
      watch.lap(times.prepare);
      if (i == 0 && step == first_step && plan.screens) {
        screening = probe_first<T>(plan, super, margins, can_defer, work, watch, times);
      }
      if (screening.by_centroids && step == first_step) quantize_centroids<T>(plan, screening, super, work);
      watch.lap(times.prepare);
      screen<T>(plan, super, screening, margins, can_defer, work);
      watch.lap(times.screen);
      accumulate<T>(plan, super, work, of_emb, plan.self ? of_emb : of_ref);
      add_tiles(super, work, total);
      watch.lap(times.accumulate);
    }
  }
  // Without rows the loop above packs no columns, but a column that is not finite still makes the loss NaN.
  for (int64_t j = 0; plan.rows == 0 && j < super_columns; ++j) sides.take_columns(j, false, screening);

  ForwardResult result = result_of(plan, total, margins, times);
  if (!sides.finite()) {
    fill(std::numeric_limits<T>::quiet_NaN());
    result.positive_sum = result.negative_sum = std::numeric_limits<double>::quiet_NaN();
  }
  return result;
}

#define TCM_INSTANTIATE(T)                                                                       \
  template ForwardResult forward<T>(const Plan&, const RawRows&, const int64_t*, const RawRows&, \
                                    const int64_t*, int64_t, Margins<double>, bool, Workspace&,  \
                                    PartnerSums<T>, PartnerSums<T>);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
