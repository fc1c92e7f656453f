#include "sample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "classes.h"
#include "glue.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kMostSampled = 64;  // rows and columns: 4096 pairs
constexpr int64_t kSampledFrom = 128;  // one row in so many, so that a look costs little beside the sweep
constexpr int64_t kStep = 64;          // K is a multiple of this
// Measured on a Xeon with AVX512-VNNI at D = 512: an inner product in full precision takes as long as 20
// pairs of an int8 product of all columns, or as 5 of a float32 product.
constexpr double kInnerProductByCodes = 20.0;
constexpr double kInnerProduct = 5.0;
constexpr double kMostLeft = 1.0 / 32;   // share of pairs that a first look may leave
constexpr double kUselessFrom = 1.0 / 8;  // share of open pairs from which on int8 products are not tried

int64_t steps_of(const Plan& plan) { return (plan.dim + kStep - 1) / kStep; }

// Lengths of u[k:] at every step.
template <class T>
std::vector<double> tails(const Plan& plan, const T* u) {
  const int64_t steps = steps_of(plan);
  std::vector<double> tail(steps + 1, 0.0);
  double square = 0;
  for (int64_t step = steps - 1; step >= 0; --step) {
    const int64_t from = step * kStep;
    square += simd<T>().squared_norm(u + from, std::min(kStep, plan.dim - from));
    tail[step] = std::sqrt(square);
  }
  return tail;
}

// A sampled row: its position in the pack, and the lengths of its rest.
struct Sampled {
  int64_t row;
  std::vector<double> tail;
};

template <class T>
std::vector<Sampled> take(const Plan& plan, const PackedRows& packed, int64_t count, bool shifted) {
  std::vector<Sampled> sample;
  const int64_t size = std::clamp(count / kSampledFrom, int64_t(1), kMostSampled);
  for (int64_t k = 0; k < size; ++k) {
    const int64_t row = (2 * k + (shifted ? 1 : 0)) * count / (2 * size);
    sample.push_back({row, tails(plan, static_cast<const T*>(packed.unit) + row * plan.dim)});
  }
  return sample;
}

// The block of columns as tiles see it, by the largest of each.
struct Worst {
  double scale = 0, error = 0;
  std::vector<double> tail;
};

// How many of the sampled pairs a first look leaves, by the number of steps it takes.
struct Left {
  std::vector<int64_t> pairs;
  double share(int64_t step, int64_t of) const { return double(pairs[step]) / double(std::max<int64_t>(of, 1)); }
};

}  // namespace

template <class T>
Screening choose_screening(const Plan& plan, const SuperTile& super, Margins<double> margins, bool can_defer,
                           const Workspace& work) {
  const PackedRows &rows = work.packed_rows, &columns = work.packed_columns;
  const int64_t row0 = super.row_tile * plan.tile, col0 = super.col_tile * plan.tile, steps = steps_of(plan);
  const auto x = take<T>(plan, rows, super.rows(plan), false);
  const auto r = take<T>(plan, columns, super.columns(plan), true);
  Worst worst{0, 0, std::vector<double>(steps + 1, 0.0)};
  for (const Sampled& b : r) {
    if (plan.codes) {
      worst.scale = std::max(worst.scale, double(columns.scale[b.row]));
      worst.error = std::max(worst.error, double(columns.error[b.row]));
    }
    for (int64_t step = 0; step <= steps; ++step) worst.tail[step] = std::max(worst.tail[step], b.tail[step]);
  }

  Left by_rows{std::vector<int64_t>(steps + 1, 0)}, by_classes = by_rows;
  int64_t pairs = 0, open = 0, hard = 0;
  std::vector<T> mean(plan.dim), centre(plan.dim);
  std::vector<char> code(plan.class_code_bytes());
  for (const Sampled& a : x) {
    const T* u = static_cast<const T*>(rows.unit) + a.row * plan.dim;
    const float row_error = plan.codes ? rows.error[a.row] : product_error<T>(plan.dim);
    // The row's class, as far as it is in the same block, and what its code stands for.
    const int64_t block = a.row / plan.tile * plan.tile, block_end = std::min(super.rows(plan), block + plan.tile);
    const auto same_class = [&](int64_t i) {
      return work.row_order[row0 + i].label == work.row_order[row0 + a.row].label;
    };
    int64_t first = a.row, last = a.row + 1;
    while (first > block && same_class(first - 1)) --first;
    while (last < block_end && same_class(last)) ++last;
    const RowCode of_class = code_class<T>(plan, rows, first, last, mean.data(), code.data());
    for (int64_t k = 0; k < plan.dim; ++k) {
      centre[k] = plan.codes ? T(of_class.scale * float(reinterpret_cast<int8_t*>(code.data())[k]))
                             : reinterpret_cast<T*>(code.data())[k];
    }

    for (const Sampled& b : r) {
      const int64_t column = col0 + b.row;
      if (column >= work.same_begin[row0 + a.row] && column < work.same_end[row0 + a.row]) continue;
      const T* v = static_cast<const T*>(columns.unit) + b.row * plan.dim;
      const double scale = plan.codes ? columns.scale[b.row] : 0;
      const double stretch = scale > 0 ? worst.scale / scale : 1.0;
      // Similarities by what comes first, and which of them could be hard.
      const auto look = [&](const T* row, float error, Left& left) {
        const double bound = similarity_error(error, worst.error);
        double s = 0;
        for (int64_t step = 1; step <= steps; ++step) {
          const int64_t from = (step - 1) * kStep;
          s += double(simd<T>().dot(row + from, v + from, std::min(kStep, plan.dim - from)));
          const double most = std::max(s, s * stretch) + a.tail[step] * worst.tail[step] + bound;
          left.pairs[step] += most >= margins.minus;
        }
        return s;
      };
      const double s = look(u, row_error, by_rows);
      look(centre.data(), of_class.error, by_classes);
      const double error = similarity_error(row_error, plan.codes ? columns.error[b.row] : 0.0f);
      open += std::abs(s - margins.minus) <= error;
      hard += s >= margins.minus;
      ++pairs;
    }
  }

  const Screening full{false, false, plan.dim};
  if (pairs == 0) return {plan.codes, false, plan.dim};
  // Neither few hard nor few not hard: sums of similarities are needed, unless they can be deferred.
  const bool middle = std::min(hard, pairs - hard) * kOpenFrom > pairs;
  if (double(open) > kUselessFrom * double(pairs) || (middle && !can_defer)) return full;

  const double inner_product = plan.codes ? kInnerProductByCodes : kInnerProduct;
  Screening best{plan.codes, false, plan.dim};
  double least = 1.0 + (plan.codes ? inner_product * by_rows.share(steps, pairs) : 0.0);
  const auto consider = [&](bool classes, int64_t step, double products, double share) {
    const double cost = products * double(step) / double(steps) + inner_product * share;
    if (share > kMostLeft || cost >= least) return;
    least = cost;
    best = {plan.codes, classes, std::min(step * kStep, plan.dim)};
  };
  const double classes = double(count_classes(plan, super, work)) / double(super.rows(plan));
  for (int64_t step = plan.codes ? 1 : steps; step <= steps; ++step) {
    if (step < steps) consider(false, step, 1.0, by_rows.share(step, pairs));
    consider(true, step, classes, by_classes.share(step, pairs));
  }
  return best;
}

template <class T>
void measure_tails(const Plan& plan, const Screening& screening, int64_t rows, const PackedRows& packed) {
  constexpr int64_t kRowsPerTask = 256;
  const int64_t from = std::min(screening.prefix, plan.dim);
  for_each_task((rows + kRowsPerTask - 1) / kRowsPerTask, plan.threads, [&](int64_t task, int64_t) {
    const int64_t last = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < last; ++i) {
      const T* u = static_cast<const T*>(packed.unit) + i * plan.dim + from;
      const double square = simd<T>().squared_norm(u, plan.dim - from);
      packed.tail[i] = static_cast<float>(std::sqrt(square) * kRoundUp) + kRoundUpTiny;
    }
  });
}

#define TCM_INSTANTIATE(T)                                                                                \
  template Screening choose_screening<T>(const Plan&, const SuperTile&, Margins<double>, bool,              \
                                         const Workspace&);                                              \
  template void measure_tails<T>(const Plan&, const Screening&, int64_t, const PackedRows&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
