#include "pair_list.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/ceil_div.h"
#include "cpu/carver.h"
#include "cpu/simd/simd.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kProducts = 256;  // inner products at a time

void mark_listed(const int64_t* index, int64_t count, int64_t rows, uint8_t* listed) {
  for (int64_t k = 0; k < count; ++k) {
    if (index[k] < 0 || index[k] >= rows) {
      throw std::out_of_range("pairs: got " + std::to_string(index[k]) + " for one of " +
                              std::to_string(rows) + " rows");
    }
    listed[index[k]] = 1;
  }
}

// Unit rows where `listed`; false if the norm of any row, listed or not, is not a finite number of type T.
template <class T>
bool make_units(const RawRows& raw, const uint8_t* listed, int64_t threads, T* units) {
  std::atomic<bool> finite{true};
  for_each_task(ceil_div(raw.rows, kRowsPerTask), threads, [&](int64_t task, int64_t) {
    const Simd<T>& loops = simd<T>();
    std::vector<T> buffer(raw.dtype == scalar_type<T>() ? 0 : raw.dim);
    const int64_t last = std::min(raw.rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < last; ++i) {
      const T* x = load_row<T>(raw, i, buffer.data());
      const double norm = std::sqrt(loops.squared_norm(x, raw.dim));
      if (!std::isfinite(static_cast<T>(norm))) finite.store(false, std::memory_order_relaxed);
      if (listed[i]) loops.scale(x, 1.0 / std::max(norm, kNormFloor), units + i * raw.dim, raw.dim);
    }
  });
  return finite.load();
}

// partner[begin[i] .. begin[i + 1]) become the partners of row i, in the order of the list.
void sort_by_row(const int64_t* own, const int64_t* others, int64_t count, int64_t rows, int64_t* begin,
                 int32_t* partner) {
  std::fill_n(begin, rows + 1, int64_t(0));
  for (int64_t k = 0; k < count; ++k) ++begin[own[k]];
  int64_t end = 0;
  for (int64_t i = 0; i <= rows; ++i) begin[i] = end += begin[i];
  // From the back, `begin` moves from the end of each row's partners to their beginning.
  for (int64_t k = count - 1; k >= 0; --k) partner[--begin[own[k]]] = static_cast<int32_t>(others[k]);
}

// One end of the pairs of one sign: its rows, their partners, and what these are added to.
template <class T>
struct End {
  int64_t rows;
  const T* units;
  const T* partners;  // unit rows
  T* sums;            // (rows, D) of P or Q; null where not wanted
};

// The pairs of the rows of one task.
template <class T>
ListedSums take_rows(int64_t first, int64_t last, const End<T>& end, int64_t dim, bool positive,
                     Margins<T> margins, bool deduplicate, const PairListWorkspace& work) {
  const Simd<T>& loops = simd<T>();
  std::vector<double> acc(end.sums == nullptr ? 0 : dim);
  T s[kProducts];
  ListedSums found{0.0, 0, 0};
  for (int64_t i = first; i < last; ++i) {
    int32_t* partner = work.partner + work.begin[i];
    int64_t count = work.begin[i + 1] - work.begin[i];
    if (deduplicate) {
      std::sort(partner, partner + count);
      count = std::unique(partner, partner + count) - partner;
    }
    found.listed += count;
    const int64_t hard_before = found.hard;
    std::fill(acc.begin(), acc.end(), 0.0);
    for (int64_t k = 0; k < count; k += kProducts) {
      const int64_t products = std::min(kProducts, count - k);
      loops.dots(end.units + i * dim, end.partners, partner + k, products, dim, s);
      for (int64_t n = 0; n < products; ++n) {
        if (!is_hard(s[n], positive, margins)) continue;
        found.similarity_sum += double(s[n]);
        ++found.hard;
        if (end.sums != nullptr) loops.add_wide(acc.data(), end.partners + partner[k + n] * dim, dim);
      }
    }
    if (end.sums != nullptr && found.hard > hard_before) {
      T* out = end.sums + i * dim;
      for (int64_t d = 0; d < dim; ++d) out[d] += static_cast<T>(acc[d]);
    }
  }
  return found;
}

template <class T>
ListedSums take_end(const int64_t* own, const int64_t* others, int64_t count, const End<T>& end, int64_t dim,
                    bool positive, Margins<T> margins, bool deduplicate, int64_t threads,
                    const PairListWorkspace& work) {
  sort_by_row(own, others, count, end.rows, work.begin, work.partner);
  const int64_t tasks = ceil_div(end.rows, kRowsPerTask);
  for_each_task(tasks, threads, [&](int64_t task, int64_t) {
    const int64_t first = task * kRowsPerTask, last = std::min(end.rows, first + kRowsPerTask);
    work.of_tasks[task] = take_rows(first, last, end, dim, positive, margins, deduplicate, work);
  });
  ListedSums total{0.0, 0, 0};
  for (int64_t task = 0; task < tasks; ++task) {
    total.similarity_sum += work.of_tasks[task].similarity_sum;
    total.hard += work.of_tasks[task].hard;
    total.listed += work.of_tasks[task].listed;
  }
  return total;
}

}  // namespace

int64_t PairListWorkspace::carve(int64_t rows, int64_t columns, bool is_self, int64_t dim, int64_t element,
                                 int64_t pairs, void* base) {
  Carver carver(base);
  const auto take = [&](auto*& pointer, int64_t bytes) { carver.take(pointer, bytes); };
  const int64_t most = std::max(rows, columns);
  take(row_units, rows * dim * element);
  take(rows_listed, rows);
  if (is_self) {
    column_units = row_units;
    columns_listed = rows_listed;
  } else {
    take(column_units, columns * dim * element);
    take(columns_listed, columns);
  }
  take(begin, (most + 1) * int64_t(sizeof(int64_t)));
  take(partner, pairs * int64_t(sizeof(int32_t)));
  take(of_tasks, ceil_div(most, kRowsPerTask) * int64_t(sizeof(ListedSums)));
  return carver.used();
}

template <class T>
PairListResult pair_list_sums(const RawRows& rows, const RawRows& columns, bool is_self,
                              const ListedPairs& positives, const ListedPairs& negatives,
                              Margins<double> margins, bool deduplicate, int64_t threads,
                              const PairListWorkspace& work, PartnerSums<T> of_rows,
                              PartnerSums<T> of_columns) {
  std::fill_n(work.rows_listed, rows.rows, uint8_t(0));
  std::fill_n(work.columns_listed, columns.rows, uint8_t(0));
  for (const ListedPairs* pairs : {&positives, &negatives}) {
    mark_listed(pairs->anchors, pairs->count, rows.rows, work.rows_listed);
    mark_listed(pairs->partners, pairs->count, columns.rows, work.columns_listed);
  }
  T* row_units = static_cast<T*>(work.row_units);
  T* column_units = static_cast<T*>(work.column_units);
  PairListResult result{};
  result.finite = make_units(rows, work.rows_listed, threads, row_units);
  if (is_self) {
    of_columns = of_rows;
  } else {
    result.finite &= make_units(columns, work.columns_listed, threads, column_units);
  }
  const auto take_sign = [&](const ListedPairs& pairs, bool positive, T* of_anchors, T* of_partners) {
    const auto take = [&](const int64_t* own, const int64_t* others, const End<T>& end) {
      return take_end(own, others, pairs.count, end, rows.dim, positive, thresholds<T>(margins), deduplicate,
                      threads, work);
    };
    const ListedSums found =
        take(pairs.anchors, pairs.partners, {rows.rows, row_units, column_units, of_anchors});
    if (of_partners != nullptr) {
      take(pairs.partners, pairs.anchors, {columns.rows, column_units, row_units, of_partners});
    }
    return found;
  };
  result.positive = take_sign(positives, true, of_rows.positive, of_columns.positive);
  result.negative = take_sign(negatives, false, of_rows.negative, of_columns.negative);
  return result;
}

#define TCM_INSTANTIATE(T)                                                                            \
  template PairListResult pair_list_sums<T>(const RawRows&, const RawRows&, bool, const ListedPairs&, \
                                            const ListedPairs&, Margins<double>, bool, int64_t,       \
                                            const PairListWorkspace&, PartnerSums<T>, PartnerSums<T>);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
