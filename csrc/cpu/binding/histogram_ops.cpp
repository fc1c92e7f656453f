// The private ops of the CPU backend's histogram: schemas, checks, and the step from tensors to pointers.
// tcm_kernels/backends/cpu.py calls them and allocates what they write; see loss_ops.cpp.
#include <algorithm>
#include <optional>
#include <vector>

#include "checks.h"
#include "cpu/histogram/pair_histogram.h"
#include "huge_pages.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kMostBins = 30000;  // MOST_BINS of tcm_kernels/backends/contract.py: columns take 16 bits

HistogramPlan plan_of(const Tensor& emb, const std::optional<Tensor>& ref, int64_t threads) {
  STD_TORCH_CHECK(threads > 0, "threads: expected at least 1");
  STD_TORCH_CHECK(emb.dim() == 2 && (!ref || ref->dim() == 2), "embeddings: expected a matrix");
  return HistogramPlan::make(emb.size(0), ref ? ref->size(0) : emb.size(0), emb.size(1), !ref,
                             is_double(emb) ? sizeof(double) : sizeof(float), threads);
}

Bins bins_of(int64_t bins, double lo, double hi) {
  STD_TORCH_CHECK(bins > 0 && bins <= kMostBins && lo < hi, "bins, lo, hi: out of range");
  return Bins::make(lo, hi, bins);
}

int64_t histogram_edge_op(Tensor emb, std::optional<Tensor> ref, int64_t threads) {
  return plan_of(emb, ref, threads).super_rows();
}

int64_t histogram_workspace_bytes_op(Tensor emb, std::optional<Tensor> ref, int64_t threads, int64_t bins,
                                     int64_t most_groups) {
  return plan_of(emb, ref, threads).workspace_bytes(bins_of(bins, -1.0, 1.0), most_groups);
}

// A side's tensors: embeddings, order, group, rank, label.
HistogramSide side_of(const std::vector<Tensor>& tensors, int64_t group_count) {
  STD_TORCH_CHECK(tensors.size() == 5, "rows and columns: expected 5 tensors each, got ", tensors.size());
  const Tensor &x = tensors[0], &order = tensors[1], &group = tensors[2], &rank = tensors[3],
               &label = tensors[4];
  check_rows(x, "embeddings");
  const int64_t n = x.size(0);
  check_vector(order, "order", ScalarType::Long, n);
  check_vector(group, "group", ScalarType::Int, n);
  check_vector(rank, "rank", ScalarType::Int, n);
  check_vector(label, "label", ScalarType::Int, n);
  const int32_t* groups = group.const_data_ptr<int32_t>();
  STD_TORCH_CHECK(
      std::is_sorted(groups, groups + n) && (n == 0 || (groups[0] >= 0 && groups[n - 1] < group_count)),
      "group: expected sorted numbers below ", group_count);
  return {raw_rows(x), order.const_data_ptr<int64_t>(), groups, rank.const_data_ptr<int32_t>(),
          label.const_data_ptr<int32_t>()};
}

// Checks that the counters suffice: the rows of a super-tile's edge have at most `most_groups` groups.
void check_groups(const HistogramSide& side, int64_t edge, int64_t most_groups) {
  for (int64_t begin = 0; begin < side.raw.rows; begin += edge) {
    const int64_t last = std::min(begin + edge, side.raw.rows) - 1;
    STD_TORCH_CHECK(std::is_sorted(side.rank + begin, side.rank + last + 1) &&
                        side.rank[last] - side.rank[begin] < most_groups,
                    "rank: expected at most ", most_groups, " groups, sorted");
  }
}

// `column_side` is empty in the self case.
void pair_histogram_op(std::vector<Tensor> row_side, std::vector<Tensor> column_side,
                       std::optional<Tensor> self_index, int64_t bins, double lo, double hi, int64_t threads,
                       int64_t most_groups, Tensor positives, Tensor negatives, Tensor pooled,
                       Tensor workspace) {
  const Bins rule = bins_of(bins, lo, hi);
  STD_TORCH_CHECK(positives.dim() == 2, "positives: expected a matrix");
  const int64_t group_count = positives.size(0), cells = group_count * rule.columns();
  check_vector(positives, "positives", ScalarType::Long, cells);
  check_vector(negatives, "negatives", ScalarType::Long, cells);
  check_vector(pooled, "pooled", ScalarType::Long, 2 * int64_t(rule.columns()));
  const HistogramSide rows = side_of(row_side, group_count);
  const Tensor& emb = row_side[0];
  HistogramSide columns = rows;
  std::optional<Tensor> ref;
  if (!column_side.empty()) {
    columns = side_of(column_side, group_count);
    ref = column_side[0];
    check_same_columns(*ref, emb);
  }
  if (self_index) check_vector(*self_index, "self_index", ScalarType::Int, emb.size(0));
  const HistogramPlan plan = plan_of(emb, ref, threads);
  check_groups(rows, plan.super_rows(), most_groups);
  check_groups(columns, plan.super_rows(), most_groups);
  check_vector(workspace, "workspace", ScalarType::Byte, plan.workspace_bytes(rule, most_groups));
  prefer_huge_pages(workspace.mutable_data_ptr(), workspace.numel());
  const auto run = is_double(emb) ? pair_histogram<double> : pair_histogram<float>;
  run(plan, rule, rows, columns, self_index ? self_index->const_data_ptr<int32_t>() : nullptr, most_groups,
      static_cast<char*>(workspace.mutable_data_ptr()),
      {positives.mutable_data_ptr<int64_t>(), negatives.mutable_data_ptr<int64_t>(),
       pooled.mutable_data_ptr<int64_t>()});
}

}  // namespace
}  // namespace tcm::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(tcm_kernels, m) {
  m.def("_cpu_histogram_edge(Tensor emb, Tensor? ref, int threads) -> int");
  m.def(
      "_cpu_histogram_workspace_bytes(Tensor emb, Tensor? ref, int threads, int bins, int most_groups) -> "
      "int");
  m.def(
      "_cpu_pair_histogram(Tensor[] rows, Tensor[] columns, Tensor? self_index, int bins, float lo, "
      "float hi, int threads, int most_groups, Tensor(a!) positives, Tensor(b!) negatives, "
      "Tensor(c!) pooled, Tensor(d!) workspace) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(tcm_kernels, CPU, m) {
  m.impl("_cpu_histogram_edge", TORCH_BOX(&tcm::cpu::histogram_edge_op));
  m.impl("_cpu_histogram_workspace_bytes", TORCH_BOX(&tcm::cpu::histogram_workspace_bytes_op));
  m.impl("_cpu_pair_histogram", TORCH_BOX(&tcm::cpu::pair_histogram_op));
}
