// The private op of the histogram in the CUDA backend. How it is bound: loss_ops.cpp.
#include <cstdint>
#include <vector>

#include "checks.h"
#include "cuda/histogram/histogram.h"

namespace tcm::cuda {
namespace {

constexpr int64_t kMostBins = 30000;  // MOST_BINS of tcm_kernels/backends/contract.py

// A side's tensors: x, order, group, rank, label, tiles, self_index, and inverse, which is written.
HistogramSide side_of(const std::vector<Tensor>& tensors, int64_t most_groups) {
  STD_TORCH_CHECK(tensors.size() == 8, "rows and columns: expected 8 tensors each, got ", tensors.size());
  const Tensor &x = tensors[0], &order = tensors[1], &group = tensors[2], &rank = tensors[3],
               &label = tensors[4], &tiles = tensors[5], &self_index = tensors[6], &inverse = tensors[7];
  check_rows(x, "embeddings");
  const int64_t n = x.size(0);
  check_vector(order, "order", ScalarType::Long, n, x);
  check_vector(group, "group", ScalarType::Int, n, x);
  check_vector(rank, "rank", ScalarType::Int, n, x);
  check_vector(label, "label", ScalarType::Int, n, x);
  check_vector(tiles, "tiles", ScalarType::Int, 4 * tiles_of(n), x);
  check_vector(self_index, "self_index", ScalarType::Int, n, x);
  check_vector(inverse, "inverse", ScalarType::Float, n, x);
  STD_TORCH_CHECK(most_groups >= 0 && most_groups <= kTile, "most_groups: expected at most ", kTile);
  Side side{};
  side.x = x.const_data_ptr();
  side.order = order.const_data_ptr<int64_t>();
  side.self_index = self_index.const_data_ptr<int32_t>();
  side.inverse = inverse.mutable_data_ptr<float>();
  side.n = static_cast<int>(n);
  return {side,
          group.const_data_ptr<int32_t>(),
          rank.const_data_ptr<int32_t>(),
          label.const_data_ptr<int32_t>(),
          reinterpret_cast<const TileFacts*>(tiles.const_data_ptr<int32_t>()),
          static_cast<int>(most_groups)};
}

void pair_histogram_op(std::vector<Tensor> row_side, std::vector<Tensor> column_side, int64_t row_most_groups,
                       int64_t column_most_groups, int64_t bins, double lo, double hi, bool highest,
                       Tensor edges, Tensor not_finite, Tensor positives, Tensor negatives,
                       Tensor of_one_group) {
  const bool is_self = column_side.empty();
  STD_TORCH_CHECK(bins > 0 && bins <= kMostBins && lo < hi, "bins, lo, hi: out of range");
  const Bins rule = Bins::make(lo, hi, bins);
  const HistogramSide rows = side_of(row_side, row_most_groups);
  const HistogramSide columns = is_self ? rows : side_of(column_side, column_most_groups);
  const Tensor &emb = row_side[0], &other = is_self ? emb : column_side[0];
  check_columns(other, emb);
  const Device device = device_of(emb);
  const Dtype dtype = dtype_of(emb);
  check_vector(edges, "edges", ScalarType::Float, bins + 3, emb);
  check_vector(not_finite, "not_finite", ScalarType::Int, 1, emb);
  STD_TORCH_CHECK(positives.dim() == 2, "positives: expected a matrix");
  const int64_t cells = positives.size(0) * rule.columns();
  check_vector(positives, "positives", ScalarType::Long, cells, emb);
  check_vector(negatives, "negatives", ScalarType::Long, cells, emb);
  check_vector(of_one_group, "of_one_group", ScalarType::Long, 2 * int64_t{rule.columns()}, emb);
  pair_histogram(device, dtype, highest ? Precision::highest : Precision::lower, rule, rows, columns, is_self,
                 emb.size(1), edges.mutable_data_ptr<float>(), not_finite.mutable_data_ptr<int32_t>(),
                 {positives.mutable_data_ptr<int64_t>(), negatives.mutable_data_ptr<int64_t>(),
                  of_one_group.mutable_data_ptr<int64_t>(), rule.columns()});
}

}  // namespace
}  // namespace tcm::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(TCM_OPS, m) {
  m.def(
      "_cuda_pair_histogram(Tensor(a!)[] rows, Tensor(b!)[] columns, int row_most_groups, "
      "int column_most_groups, int bins, float lo, float hi, bool highest, Tensor(c!) edges, "
      "Tensor(d!) not_finite, Tensor(e!) positives, Tensor(f!) negatives, Tensor(g!) of_one_group) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(TCM_OPS, TCM_DISPATCH_KEY, m) {
  m.impl("_cuda_pair_histogram", TORCH_BOX(&tcm::cuda::pair_histogram_op));
}
