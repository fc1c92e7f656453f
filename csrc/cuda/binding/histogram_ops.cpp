// The private op of the histogram in the CUDA backend. How it is bound: loss_ops.cpp.
#include <cstdint>
#include <optional>

#include "checks.h"
#include "cuda/histogram/histogram.h"

namespace tcm::cuda {
namespace {

constexpr int64_t kMostBins = 30000;  // MOST_BINS of tcm_kernels/backends/contract.py

HistogramSide side_of(const Tensor& x, const Tensor& order, const Tensor& group, const Tensor& rank,
                      const Tensor& label, const Tensor& tiles, const Tensor& self_index, int64_t most_groups,
                      Tensor inverse) {
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

void pair_histogram_op(Tensor emb, Tensor order, Tensor group, Tensor rank, Tensor label, Tensor tiles,
                       Tensor self_index, int64_t most_groups, Tensor inverse, std::optional<Tensor> ref,
                       std::optional<Tensor> ref_order, std::optional<Tensor> ref_group,
                       std::optional<Tensor> ref_rank, std::optional<Tensor> ref_label,
                       std::optional<Tensor> ref_tiles, std::optional<Tensor> ref_self_index,
                       int64_t ref_most_groups, std::optional<Tensor> ref_inverse, int64_t bins, double lo,
                       double hi, bool highest, Tensor edges, Tensor not_finite, Tensor positives,
                       Tensor negatives, Tensor of_one_group) {
  const Device device = device_of(emb);
  const Dtype dtype = dtype_of(emb);
  STD_TORCH_CHECK(bins > 0 && bins <= kMostBins && lo < hi, "bins, lo, hi: out of range");
  const Bins rule = Bins::make(lo, hi, bins);
  const HistogramSide rows = side_of(emb, order, group, rank, label, tiles, self_index, most_groups, inverse);
  HistogramSide columns = rows;
  if (ref) {
    STD_TORCH_CHECK(
        ref_order && ref_group && ref_rank && ref_label && ref_tiles && ref_self_index && ref_inverse,
        "ref: expected its order, its groups and its labels");
    STD_TORCH_CHECK(ref->scalar_type() == emb.scalar_type() && on_one_device(*ref, emb) && ref->dim() == 2 &&
                        ref->size(1) == emb.size(1),
                    "ref: expected the columns, dtype and device of emb");
    columns = side_of(*ref, *ref_order, *ref_group, *ref_rank, *ref_label, *ref_tiles, *ref_self_index,
                      ref_most_groups, *ref_inverse);
  }
  check_vector(edges, "edges", ScalarType::Float, bins + 3, emb);
  check_vector(not_finite, "not_finite", ScalarType::Int, 1, emb);
  STD_TORCH_CHECK(positives.dim() == 2, "positives: expected a matrix");
  const int64_t cells = positives.size(0) * rule.columns();
  check_vector(positives, "positives", ScalarType::Long, cells, emb);
  check_vector(negatives, "negatives", ScalarType::Long, cells, emb);
  check_vector(of_one_group, "of_one_group", ScalarType::Long, 2 * int64_t{rule.columns()}, emb);
  pair_histogram(device, dtype, highest ? Precision::highest : Precision::lower, rule, rows, columns, !ref,
                 emb.size(1), edges.mutable_data_ptr<float>(), not_finite.mutable_data_ptr<int32_t>(),
                 {positives.mutable_data_ptr<int64_t>(), negatives.mutable_data_ptr<int64_t>(),
                  of_one_group.mutable_data_ptr<int64_t>(), rule.columns()});
}

}  // namespace
}  // namespace tcm::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(TCM_OPS, m) {
  m.def(
      "_cuda_pair_histogram(Tensor emb, Tensor order, Tensor group, Tensor rank, Tensor label, Tensor tiles, "
      "Tensor self_index, int most_groups, Tensor(a!) inverse, Tensor? ref, Tensor? ref_order, Tensor? "
      "ref_group, "
      "Tensor? ref_rank, Tensor? ref_label, Tensor? ref_tiles, Tensor? ref_self_index, int ref_most_groups, "
      "Tensor(b!)? ref_inverse, int bins, float lo, float hi, bool highest, Tensor(c!) edges, "
      "Tensor(d!) not_finite, Tensor(e!) positives, Tensor(f!) negatives, Tensor(g!) of_one_group) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(TCM_OPS, TCM_DISPATCH_KEY, m) {
  m.impl("_cuda_pair_histogram", TORCH_BOX(&tcm::cuda::pair_histogram_op));
}
