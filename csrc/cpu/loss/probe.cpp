#include "probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "centroids.h"
#include "cpu/torch_shim.h"
#include "quantize.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kMaxSampled = 64;       // rows, and as many columns: 4096 pairs
constexpr int64_t kRowsPerSampled = 128;  // one row in 128, so that the probe costs little beside screening
constexpr int64_t kStep = 64;             // K is a multiple of this, or D
// The cost of an undecided pair, measured on a Xeon with AVX512-VNNI, D = 512. With int8 codes it takes one
// product of two rows' codes, which costs as much as 10 pairs of a tile's product; bfloat16 is taken to cost
// the same. Without codes it takes an inner product, which costs as much as 5 pairs of a float32 product.
constexpr double kUndecidedCostByCodes = 10.0;
constexpr double kUndecidedCost = 5.0;
constexpr double kMaxUndecidedInSample = 1.0 / 16;  // as a share of its pairs
// A prefix is to leave few pairs undecided even if it were shorter by kPrefixSpare of D, and to cost at most
// kPrefixFrom of what is best without one: a few columns fewer turn "none undecided" into "all", and the
// largest tail of a block is larger than that of the sample. Without these two, a prefix that saved an eighth
// of the product took up to a third longer than whole rows; with them 1.03 times as long at most, on AVX-512
// and wider.
constexpr double kPrefixSpare = 1.0 / 8;
constexpr double kPrefixFrom = 0.9;
// Some pairs need an inner product in any case: the open ones, and the hard or not hard ones where these are
// few. Above this share of them codes are not used: a product of codes takes a quarter of a float32 product,
// and an inner product as much as five pairs of a float32 product.
constexpr double kMaxInnerProductShare = 0.15;

int64_t steps_of(const Plan& plan) { return (plan.dim + kStep - 1) / kStep; }

// A sampled row: its index among the packed rows, and its tail at every step.
struct Sampled {
  int64_t row;
  std::vector<double> tail;
};

template <class T>
std::vector<Sampled> take(const Plan& plan, const PackedRows& packed, int64_t count, bool shifted) {
  const int64_t size = std::clamp(count / kRowsPerSampled, int64_t(1), kMaxSampled), steps = steps_of(plan);
  std::vector<Sampled> sample;
  for (int64_t k = 0; k < size; ++k) {
    Sampled one{(2 * k + (shifted ? 1 : 0)) * count / (2 * size), std::vector<double>(steps + 1, 0.0)};
    const T* u = static_cast<const T*>(packed.unit) + one.row * plan.dim;
    double square = 0;
    for (int64_t step = steps - 1; step >= 0; --step) {
      const int64_t from = step * kStep;
      square += simd<T>().squared_norm(u + from, std::min(kStep, plan.dim - from));
      one.tail[step] = std::sqrt(square);
    }
    sample.push_back(std::move(one));
  }
  return sample;
}

// Counts over sampled pairs of two classes. At [step] of the two vectors: the pairs that are undecided after
// the first `step` steps of columns, by the rows' own codes or by centroids.
struct Counts {
  int64_t pairs = 0, open = 0, hard = 0;
  std::vector<int64_t> undecided_by_rows, undecided_by_centroids;

  explicit Counts(int64_t steps) : undecided_by_rows(steps + 1, 0), undecided_by_centroids(steps + 1, 0) {}
  void add(const Counts& other) {
    pairs += other.pairs, open += other.open, hard += other.hard;
    for (size_t k = 0; k < undecided_by_rows.size(); ++k) {
      undecided_by_rows[k] += other.undecided_by_rows[k];
      undecided_by_centroids[k] += other.undecided_by_centroids[k];
    }
  }
  double share(int64_t of) const { return double(of) / double(pairs); }
};

// The sampled columns, with which sampled rows are compared.
template <class T>
class ColumnSample {
 public:
  ColumnSample(const Plan& plan, const SuperTile& super, Margins<double> margins, const Workspace& work)
      : plan_(plan),
        super_(super),
        margins_(margins),
        work_(work),
        columns_(take<T>(plan, work.packed_columns, super.columns(plan), true)),
        worst_tail_(steps_of(plan) + 1, 0.0) {
    // Thresholds of cheap products hold for a whole block of columns, so they take the largest of each.
    for (const Sampled& b : columns_) {
      if (plan.codes()) {
        worst_scale_ = std::max(worst_scale_, work.packed_columns.scale[b.row]);
        worst_error_ = std::max(worst_error_, work.packed_columns.error[b.row]);
      }
      for (size_t k = 0; k < b.tail.size(); ++k) worst_tail_[k] = std::max(worst_tail_[k], b.tail[k]);
    }
  }

  Counts compared_with(const Sampled& a) const {
    Counts counts(steps_of(plan_));
    const int64_t row = super_.row_tile * plan_.tile + a.row, col0 = super_.col_tile * plan_.tile;
    const float row_error = plan_.codes() ? work_.packed_rows.error[a.row] : product_error<T>(plan_.dim);
    std::vector<T> centre(plan_.dim);
    const float class_error = class_of(a.row, centre.data());
    for (const Sampled& b : columns_) {
      if (col0 + b.row >= work_.same_begin[row] && col0 + b.row < work_.same_end[row]) continue;
      const double s =
          count_undecided(a, unit(work_.packed_rows, a.row), row_error, b, counts.undecided_by_rows);
      count_undecided(a, centre.data(), class_error, b, counts.undecided_by_centroids);
      const float column_error = plan_.codes() ? work_.packed_columns.error[b.row] : 0.0f;
      counts.open += std::abs(s - margins_.minus) <= double(similarity_error(row_error, column_error));
      counts.hard += s >= margins_.minus;
      ++counts.pairs;
    }
    return counts;
  }

 private:
  const T* unit(const PackedRows& packed, int64_t row) const {
    return static_cast<const T*>(packed.unit) + row * plan_.dim;
  }

  // Writes what the centroid of the row's class, within the row's block, stands for; returns its error.
  float class_of(int64_t row, T* centre) const {
    const LabelledRow* order = work_.row_order + super_.row_tile * plan_.tile;
    const int64_t begin = row / plan_.tile * plan_.tile,
                  end = std::min(super_.rows(plan_), begin + plan_.tile);
    int64_t first = row, last = row + 1;
    while (first > begin && order[first - 1].label == order[row].label) --first;
    while (last < end && order[last].label == order[row].label) ++last;
    std::vector<T> mean(plan_.dim);
    std::vector<char> code(plan_.centroid_bytes());
    const RowCode of_class =
        quantize_centroid<T>(plan_, work_.packed_rows, first, last, mean.data(), code.data());
    if (plan_.codes()) {
      decode(plan_, code.data(), of_class.scale, centre);
    } else {
      std::memcpy(centre, code.data(), code.size());
    }
    return of_class.error;
  }

  // For every number of steps, counts whether the pair (a, b) is undecided. u is the row of a, or what the
  // centroid of its class stands for. Returns the inner product of u and the row of b.
  double count_undecided(const Sampled& a, const T* u, float error, const Sampled& b,
                         std::vector<int64_t>& undecided) const {
    const T* v = unit(work_.packed_columns, b.row);
    const double bound = similarity_error(error, worst_error_);
    const float scale = plan_.codes() ? work_.packed_columns.scale[b.row] : 0.0f;
    const double stretch = scale > 0 ? double(worst_scale_) / double(scale) : 1.0;
    double s = 0;
    for (int64_t step = 1; step < int64_t(undecided.size()); ++step) {
      const int64_t from = (step - 1) * kStep;
      s += double(simd<T>().dot(u + from, v + from, std::min(kStep, plan_.dim - from)));
      undecided[step] +=
          std::max(s, s * stretch) + a.tail[step] * worst_tail_[step] + bound >= margins_.minus;
    }
    return s;
  }

  const Plan& plan_;
  const SuperTile& super_;
  const Margins<double> margins_;
  const Workspace& work_;
  const std::vector<Sampled> columns_;
  float worst_scale_ = 0, worst_error_ = 0;
  std::vector<double> worst_tail_;
};

// The screening that costs least by the counts. `centroids`: their number per row of the super-tile.
ScreeningPlan cheapest(const Plan& plan, const Counts& counts, double centroids) {
  const int64_t steps = steps_of(plan);
  const double cost_of_undecided = plan.codes() ? kUndecidedCostByCodes : kUndecidedCost;
  ScreeningPlan best{plan.codes(), false, plan.dim};
  double least =
      1.0 + (plan.codes() ? cost_of_undecided * counts.share(counts.undecided_by_rows[steps]) : 0.0);
  const auto consider = [&](bool by_centroids, int64_t step, double products, double undecided) {
    const double cost = products * double(step) / double(steps) + cost_of_undecided * undecided;
    if (undecided > kMaxUndecidedInSample || cost >= least) return;
    least = cost;
    best = {plan.codes(), by_centroids, std::min(step * kStep, plan.dim)};
  };
  consider(true, steps, centroids, counts.share(counts.undecided_by_centroids[steps]));
  if (!plan.codes()) return best;

  const int64_t spare = std::max<int64_t>(1, int64_t(double(steps) * kPrefixSpare));
  least *= kPrefixFrom;
  for (int64_t step = spare + 1; step < steps; ++step) {
    consider(false, step, 1.0, counts.share(counts.undecided_by_rows[step - spare]));
    consider(true, step, centroids, counts.share(counts.undecided_by_centroids[step - spare]));
  }
  return best;
}

}  // namespace

template <class T>
ScreeningPlan probe(const Plan& plan, const SuperTile& super, Margins<double> margins, bool can_defer,
                    const Workspace& work) {
  const auto rows = take<T>(plan, work.packed_rows, super.rows(plan), false);
  const ColumnSample<T> columns(plan, super, margins, work);
  std::vector<Counts> by_row(rows.size(), Counts(steps_of(plan)));
  for_each_task(int64_t(rows.size()), plan.threads,
                [&](int64_t k, int64_t) { by_row[k] = columns.compared_with(rows[k]); });
  Counts counts(steps_of(plan));
  for (const Counts& of_row : by_row) counts.add(of_row);

  if (counts.pairs == 0) return {plan.codes(), false, plan.dim};
  // Neither few hard nor few not hard pairs: all similarities are needed, unless their sums can be deferred.
  const bool middle =
      !is_at_most(std::min(counts.hard, counts.pairs - counts.hard), kMaxOpenShare, counts.pairs);
  const int64_t listed = middle ? 0 : std::min(counts.hard, counts.pairs - counts.hard);
  if (counts.share(counts.open + listed) > kMaxInnerProductShare || (middle && !can_defer))
    return {false, false, plan.dim};
  return cheapest(plan, counts, double(count_classes(plan, super, work)) / double(super.rows(plan)));
}

template <class T>
void measure_tails(const Plan& plan, const ScreeningPlan& screening, int64_t rows, const PackedRows& packed) {
  constexpr int64_t kRowsPerTask = 256;
  const int64_t from = std::min(screening.prefix, plan.dim);
  for_each_task((rows + kRowsPerTask - 1) / kRowsPerTask, plan.threads, [&](int64_t task, int64_t) {
    const int64_t last = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < last; ++i) {
      const T* u = static_cast<const T*>(packed.unit) + i * plan.dim + from;
      const double square = simd<T>().squared_norm(u, plan.dim - from);
      packed.tail[i] = round_up_error(square);
    }
  });
}

#define TCM_INSTANTIATE(T)                                                                                 \
  template ScreeningPlan probe<T>(const Plan&, const SuperTile&, Margins<double>, bool, const Workspace&); \
  template void measure_tails<T>(const Plan&, const ScreeningPlan&, int64_t, const PackedRows&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
