// The loss over all pairs on a CPU, without the similarity matrix.
//
// Method: prepare (sort rows by label, pack unit rows and their codes), probe (how to screen), then for each
// super-tile of up to 8192 x 8192 pairs: screen (which pairs are hard? one bit each), accumulate (hard pairs into
// P and Q). In
// the self case only tiles on and above the diagonal are visited and every pair counts twice. The backward
// needs no pair again: g_i = w+ P_i + w- Q_i, once through the normalisation.
//
// Cost, N x N self case in float32 (a bare x·xᵀ takes 2 N² D flops: 1 U). Half of the matrix is N² D int8
// operations: 0.13 U with VNNI, which has four times the float32 rate; a prefix of the columns (probe.h)
// saves a part of that, and one code for a class of k rows (centroids.h) all but 1/k. Without int8 units N² D
// flops, 0.5 U, or 0.5/k. Then one comparison a product while the tile is in cache, 4 D bytes read per hard
// pair and direction, P and Q written once. At half density, a product with the pattern of bits in either
// direction: additions only, a quarter of the 2 N² D flops that two float32 products would take.
// Memory: P and Q, two packs of at most 16 MiB and their codes, 8 MiB of bits, and per thread one tile and
// one product (2 MiB at D >= 512).
//
// Measured (Xeon, AVX512-VNNI without AMX, 2 threads, N = 8192, D = 512, 4 a class, in U, forward /
// forward and backward): hard density 1e-3 0.12 / 0.18, 1e-2 0.29 / 0.45 to 0.55, a half 0.60 / 1.14, 1 0.29 /
// 0.38. Without classes' codes, 4e-4 took 0.20 / 0.24; with 16-bit products of what these leave, 1e-3 took 0.16 /
// 0.21; with float32 products for patterns, a half took 1.80.
#include "forward.h"

#include <algorithm>
#include <chrono>
#include <limits>

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

// Adds the time since it last did so to a stage.
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

}  // namespace

template <class T>
ForwardResult forward(const Plan& plan, const RawRows& emb, const int64_t* labels, const RawRows& ref,
                      const int64_t* ref_labels, int64_t self_offset, Margins<double> margins,
                      Workspace& work, PartnerSums<T> of_emb, PartnerSums<T> of_ref) {
  Stopwatch watch;
  StageTimes times;
  order_by_label(plan, labels, ref_labels, self_offset, work);
  fill_rows(of_emb, plan.rows, plan.dim, plan.threads, T(0));
  if (!plan.self) fill_rows(of_ref, plan.columns, plan.dim, plan.threads, T(0));
  watch.lap(times.order);
  const PartnerSums<T> of_columns = plan.self ? of_emb : of_ref;
  const RawRows& columns = plan.self ? emb : ref;

  TileSums total{};
  ScreeningPlan screening{plan.codes(), false, plan.dim};
  const bool can_defer = of_emb.positive != nullptr;
  bool finite = true;
  const auto super_count = [&](int64_t n) { return (n + plan.super_rows() - 1) / plan.super_rows(); };
  const auto pack = [&](const RawRows& raw, const LabelledRow* order, int64_t super,
                        const PackedRows& packed) {
    const int64_t begin = super * plan.super_rows(), end = std::min(raw.rows, begin + plan.super_rows());
    finite &= pack_rows<T>(plan, raw, order, begin, end, work, packed);
    if (screening.has_prefix(plan)) measure_tails<T>(plan, screening, end - begin, packed);
  };

  // Super-tiles in an order in which every row of them begins with columns that are packed already: in the
  // self case the last columns that a row meets are the next one's rows.
  PackedRows packed_rows = work.packed_rows, packed_columns = work.packed_columns;
  int64_t columns_held = -1;
  const int64_t super_columns = super_count(plan.columns);
  for (int64_t i = 0; i < super_count(plan.rows); ++i) {
    if (plan.self && columns_held == i) {
      std::swap(packed_rows, packed_columns);
      columns_held = -1;
    } else {
      pack(emb, work.row_order, i, packed_rows);
    }
    work.packed_rows = packed_rows;
    for (int64_t step = plan.self ? i : 0; step < super_columns; ++step) {
      const bool new_rows = step == (plan.self ? i : 0);
      const int64_t backwards = super_columns - 1 - step;
      const int64_t j = plan.self ? (new_rows ? i : backwards + i + 1) : i % 2 == 0 ? step : backwards;
      const SuperTile super = SuperTile::at(plan, i, j);
      work.packed_columns = super.diagonal ? packed_rows : packed_columns;
      if (!super.diagonal && columns_held != j) {
        pack(columns, work.col_order, j, packed_columns);
        columns_held = j;
      }
      watch.lap(times.prepare);
      if (i == 0 && new_rows && plan.screens) {
        screening = probe<T>(plan, super, margins, can_defer, work);
        watch.lap(times.probe);
        if (screening.has_prefix(plan)) {
          measure_tails<T>(plan, screening, super.rows(plan), work.packed_rows);
          if (!super.diagonal) measure_tails<T>(plan, screening, super.columns(plan), work.packed_columns);
        }
      }
      if (screening.classes && new_rows) quantize_centroids<T>(plan, screening, super, work);
      watch.lap(times.prepare);
      screen<T>(plan, super, screening, margins, can_defer, work);
      watch.lap(times.screen);
      accumulate<T>(plan, super, work, of_emb, of_columns);
      for (int64_t a = 0; a < super.row_count; ++a) {
        for (int64_t b = 0; b < super.col_count; ++b) {
          if (!super.holds(a, b)) continue;
          const TileSums& tile = work.tile_sums[super.slot(a, b)];
          total.positive += tile.positive;
          total.negative += tile.negative;
          total.positives += tile.positives;
          total.negatives += tile.negatives;
        }
      }
      watch.lap(times.accumulate);
    }
  }
  // Without rows the columns were never packed, but one that is not finite still makes the loss NaN.
  for (int64_t j = 0; plan.rows == 0 && j < super_columns; ++j) {
    pack(columns, work.col_order, j, packed_columns);
  }

  const int64_t ordered = plan.self ? 2 : 1;
  if (!finite) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    fill_rows(of_emb, plan.rows, plan.dim, plan.threads, nan);
    if (!plan.self) fill_rows(of_ref, plan.columns, plan.dim, plan.threads, nan);
    return {nan, nan, ordered * total.positives, ordered * total.negatives, times};
  }
  const double positive = margins.plus * double(total.positives) - total.positive;
  const double negative = total.negative - margins.minus * double(total.negatives);
  return {ordered * std::max(positive, 0.0), ordered * std::max(negative, 0.0), ordered * total.positives,
          ordered * total.negatives, times};
}

#define TCM_INSTANTIATE(T)                                                                                \
  template ForwardResult forward<T>(const Plan&, const RawRows&, const int64_t*, const RawRows&,          \
                                    const int64_t*, int64_t, Margins<double>, Workspace&, PartnerSums<T>, \
                                    PartnerSums<T>);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
