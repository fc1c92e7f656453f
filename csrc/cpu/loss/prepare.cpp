#include "prepare.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "quantize.h"

namespace tcm::cpu {
namespace {

// A counting sort where the range of labels is small, as for class indices, else a sort by comparison.
void sort_by_label(const int64_t* labels, int64_t n, LabelledRow* order) {
  if (n == 0) return;
  const auto [least, most] = std::minmax_element(labels, labels + n);
  const uint64_t range = uint64_t(*most) - uint64_t(*least);
  if (range <= 4 * uint64_t(n)) {
    std::vector<int64_t> next(range + 2, 0);
    for (int64_t i = 0; i < n; ++i) ++next[labels[i] - *least + 1];
    for (uint64_t k = 1; k <= range; ++k) next[k] += next[k - 1];
    for (int64_t i = 0; i < n; ++i) order[next[labels[i] - *least]++] = {labels[i], i};
    return;
  }
  for (int64_t i = 0; i < n; ++i) order[i] = {labels[i], i};
  // Ties in the label are broken by the original row, which makes the order the stable one.
  std::sort(order, order + n, [](const LabelledRow& a, const LabelledRow& b) {
    return a.label != b.label ? a.label < b.label : a.index < b.index;
  });
}

template <class Half>
const float* widen(const Half* row, int64_t dim, float* buffer) {
  for (int64_t k = 0; k < dim; ++k) buffer[k] = static_cast<float>(row[k]);
  return buffer;
}

}  // namespace

template <>
const double* load_row(const RawRows& raw, int64_t index, double*) {
  return static_cast<const double*>(raw.data) + index * raw.dim;
}

template <>
const float* load_row(const RawRows& raw, int64_t index, float* buffer) {
  const int64_t at = index * raw.dim;
  switch (raw.dtype) {
    case ScalarType::BFloat16:
      return widen(static_cast<const torch::headeronly::BFloat16*>(raw.data) + at, raw.dim, buffer);
    case ScalarType::Half:
      return widen(static_cast<const torch::headeronly::Half*>(raw.data) + at, raw.dim, buffer);
    default: return static_cast<const float*>(raw.data) + at;
  }
}

void order_by_label(const Plan& plan, const int64_t* labels, const int64_t* ref_labels, int64_t self_offset,
                    Workspace& work) {
  sort_by_label(labels, plan.rows, work.row_order);
  if (!plan.self) sort_by_label(ref_labels, plan.columns, work.col_order);

  // Two pointers over the sorted columns find the run that shares each row's label.
  int64_t begin = 0, end = 0;
  for (int64_t i = 0; i < plan.rows; ++i) {
    const int64_t label = work.row_order[i].label;
    while (begin < plan.columns && work.col_order[begin].label < label) ++begin;
    end = std::max(end, begin);
    while (end < plan.columns && work.col_order[end].label == label) ++end;
    work.same_begin[i] = begin;
    work.same_end[i] = end;
  }

  if (plan.self || self_offset < 0) {
    std::fill_n(work.self_index, plan.rows, int64_t(-1));
    return;
  }
  for (int64_t j = 0; j < plan.columns; ++j) work.position[work.col_order[j].index] = j;
  for (int64_t i = 0; i < plan.rows; ++i) {
    work.self_index[i] = work.position[work.row_order[i].index + self_offset];
  }
}

template <class T>
bool pack_rows(const Plan& plan, const RawRows& raw, const LabelledRow* order, int64_t begin, int64_t end,
               const Workspace& work, const PackedRows& packed) {
  std::atomic<bool> finite{true};
  const int64_t count = end - begin, blocks = (count + plan.tile - 1) / plan.tile;
  for_each_task(blocks, plan.threads, [&](int64_t block, int64_t worker) {
    const Simd<T>& loops = simd<T>();
    T* buffer = work.row_scratch<T>(plan, worker);
    double* sum = packed.block_sum + block * plan.dim;
    std::fill_n(sum, plan.dim, 0.0);
    const int64_t last = std::min(count, (block + 1) * plan.tile);
    for (int64_t r = block * plan.tile; r < last; ++r) {
      const T* x = load_row<T>(raw, order[begin + r].index, buffer);
      const double norm = std::sqrt(loops.squared_norm(x, plan.dim));
      T* unit = static_cast<T*>(packed.unit) + r * plan.dim;
      if (std::isfinite(static_cast<T>(norm))) {
        loops.scale(x, 1.0 / std::max(norm, kNormFloor), unit, plan.dim);
      } else {
        finite.store(false, std::memory_order_relaxed);
        std::fill_n(unit, plan.dim, T(0));
      }
      loops.add_wide(sum, unit, plan.dim);
      if (plan.codes()) {
        const RowCode row = encode(plan, unit, static_cast<char*>(packed.code) + r * plan.code_bytes());
        packed.scale[r] = row.scale;
        packed.error[r] = row.error;
      }
    }
  });
  return finite.load();
}

#define TCM_INSTANTIATE(T)                                                                      \
  template bool pack_rows<T>(const Plan&, const RawRows&, const LabelledRow*, int64_t, int64_t, \
                             const Workspace&, const PackedRows&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
