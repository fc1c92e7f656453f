#include "sample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "glue.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kMostSampled = 64;  // rows and columns: 4096 pairs
constexpr int64_t kSampledFrom = 64;  // one row in so many, so that a look costs little beside the sweep
constexpr int64_t kStep = 64;     // K is a multiple of this
// Measured on a Xeon with AVX512-VNNI at D = 512: an inner product in full precision takes as long as 48
// pairs of an int8 product of all columns.
constexpr double kInnerProduct = 48.0;
constexpr double kMostLeft = 1.0 / 128;   // share of pairs that a prefix may leave
constexpr double kUselessFrom = 1.0 / 8;  // share of open pairs from which on int8 products are not tried

// Of one sampled row: position in the pack, and lengths of u[k:] at every step.
struct Sampled {
  int64_t row;
  std::vector<double> tail;
};

template <class T>
std::vector<Sampled> take(const Plan& plan, const PackedRows& packed, int64_t count, bool shifted) {
  std::vector<Sampled> sample;
  const int64_t size = std::clamp(count / kSampledFrom, int64_t(1), kMostSampled), steps = plan.code_dim / kStep;
  for (int64_t k = 0; k < size; ++k) {
    Sampled one{(2 * k + (shifted ? 1 : 0)) * count / (2 * size), std::vector<double>(steps + 1, 0.0)};
    const T* u = static_cast<const T*>(packed.unit) + one.row * plan.dim;
    double square = 0;
    for (int64_t step = steps - 1; step >= 0; --step) {
      const int64_t from = step * kStep, width = std::min(kStep, plan.dim - from);
      square += simd<T>().squared_norm(u + from, width);
      one.tail[step] = std::sqrt(square);
    }
    sample.push_back(std::move(one));
  }
  return sample;
}

}  // namespace

template <class T>
Screening choose_screening(const Plan& plan, const SuperTile& super, Margins<double> margins,
                           const Workspace& work) {
  const int64_t row0 = super.row_tile * plan.tile, col0 = super.col_tile * plan.tile;
  const auto x = take<T>(plan, work.packed_rows, super.rows(plan), false);
  const auto r = take<T>(plan, work.packed_columns, super.columns(plan), true);
  const int64_t steps = plan.code_dim / kStep;
  std::vector<int64_t> left(steps + 1, 0);  // pairs that the first `step` steps leave
  // A prefix is judged by the bound of a whole block of columns, as tiles are: by the largest of each.
  double largest_scale = 0, largest_error = 0;
  std::vector<double> largest_tail(steps + 1, 0.0);
  for (const Sampled& b : r) {
    largest_scale = std::max(largest_scale, double(work.packed_columns.scale[b.row]));
    largest_error = std::max(largest_error, double(work.packed_columns.error[b.row]));
    for (int64_t step = 0; step <= steps; ++step) {
      largest_tail[step] = std::max(largest_tail[step], b.tail[step]);
    }
  }
  int64_t pairs = 0, open = 0;
  for (const Sampled& a : x) {
    const T* u = static_cast<const T*>(work.packed_rows.unit) + a.row * plan.dim;
    for (const Sampled& b : r) {
      const int64_t column = col0 + b.row;
      if (column >= work.same_begin[row0 + a.row] && column < work.same_end[row0 + a.row]) continue;
      const T* v = static_cast<const T*>(work.packed_columns.unit) + b.row * plan.dim;
      const float row_error = work.packed_rows.error[a.row];
      const double error = similarity_error(row_error, work.packed_columns.error[b.row]);
      const double most_error = similarity_error(row_error, largest_error);
      const double scale = work.packed_columns.scale[b.row];
      const double stretch = scale > 0 ? largest_scale / scale : 1.0;
      double s = 0;
      for (int64_t step = 1; step <= steps; ++step) {
        const int64_t from = (step - 1) * kStep, width = std::min(kStep, plan.dim - from);
        s += double(simd<T>().dot(u + from, v + from, width));
        const double most = std::max(s, s * stretch) + a.tail[step] * largest_tail[step] + most_error;
        left[step] += most >= margins.minus;
      }
      open += std::abs(s - margins.minus) <= error;
      ++pairs;
    }
  }

  if (double(open) > kUselessFrom * double(pairs)) return {false, plan.code_dim};
  Screening best{true, plan.code_dim};
  double least = 1.0 + kInnerProduct * double(left[steps]) / double(std::max<int64_t>(pairs, 1));
  for (int64_t step = 1; step < steps; ++step) {
    const double share = double(left[step]) / double(std::max<int64_t>(pairs, 1));
    const double cost = double(step) / double(steps) + kInnerProduct * share;
    if (pairs > 0 && share <= kMostLeft && cost < least) {
      least = cost;
      best.prefix = step * kStep;
    }
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
  template Screening choose_screening<T>(const Plan&, const SuperTile&, Margins<double>, const Workspace&); \
  template void measure_tails<T>(const Plan&, const Screening&, int64_t, const PackedRows&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
