// The private ops of the loss over listed pairs: schemas, checks, and the step from tensors to pointers.
// tcm_kernels/backends/cpu.py calls them and allocates what they write.
#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "checks.h"
#include "cpu/loss/pair_list.h"

namespace tcm::cpu {
namespace {

// P and Q of a side, where its tensors are embeddings, P, Q and not embeddings alone.
template <class T>
PartnerSums<T> sums_of(const std::vector<Tensor>& side) {
  if (side.size() < 3) return {nullptr, nullptr};
  return partner_sums_of<T>(side[1], side[2], side[0]);
}

ListedPairs listed(const Tensor& anchors, const Tensor& partners) {
  check_vector(anchors, "anchors", ScalarType::Long, anchors.numel());
  check_vector(partners, "partners", ScalarType::Long, anchors.numel());
  return {anchors.const_data_ptr<int64_t>(), partners.const_data_ptr<int64_t>(), anchors.numel()};
}

int64_t carve(PairListWorkspace& work, const Tensor& emb, const std::optional<Tensor>& ref, int64_t pairs,
              void* base) {
  const int64_t columns = ref ? ref->size(0) : emb.size(0);
  STD_TORCH_CHECK(std::max(emb.size(0), columns) <= std::numeric_limits<int32_t>::max(),
                  "pairs: expected at most 2^31 - 1 rows");
  return work.carve(emb.size(0), columns, !ref, emb.size(1), is_double(emb) ? sizeof(double) : sizeof(float),
                    pairs, base);
}

int64_t workspace_bytes_op(Tensor emb, std::optional<Tensor> ref, int64_t pairs) {
  PairListWorkspace work;
  return carve(work, emb, ref, pairs, nullptr);
}

template <class T>
PairListResult run(const std::vector<Tensor>& emb, const std::vector<Tensor>& ref,
                   const std::vector<Tensor>& pairs, const Tensor& margins, bool deduplicate, int64_t threads,
                   const PairListWorkspace& work) {
  const RawRows rows = raw_rows(emb[0]), columns = ref.empty() ? rows : raw_rows(ref[0]);
  const double* m = margins.const_data_ptr<double>();
  return pair_list_sums<T>(rows, columns, ref.empty(), listed(pairs[0], pairs[1]), listed(pairs[2], pairs[3]),
                           {m[0], m[1]}, deduplicate, threads, work, sums_of<T>(emb), sums_of<T>(ref));
}

// `emb` and `ref`: embeddings, and P and Q where they are to be added to; `ref` is empty in the self case.
// `pairs`: anchors and partners of the positives, then of the negatives.
void pair_list_sums_op(std::vector<Tensor> emb, std::vector<Tensor> ref, std::vector<Tensor> pairs,
                       Tensor margins, bool deduplicate, int64_t threads, Tensor sums, Tensor counts,
                       Tensor numbers, Tensor workspace) {
  STD_TORCH_CHECK(!emb.empty() && pairs.size() == 4, "expected embeddings, and four vectors of pairs");
  const Tensor& x = emb[0];
  check_rows(x, "embeddings");
  std::optional<Tensor> other;
  if (!ref.empty()) {
    other = ref[0];
    check_same_columns(*other, x);
  }
  check_vector(margins, "margins", ScalarType::Double, 2);
  check_vector(sums, "sums", ScalarType::Double, 2);
  check_vector(counts, "counts", ScalarType::Long, 2);
  check_vector(numbers, "listed", ScalarType::Long, 2);
  PairListWorkspace work;
  void* base = workspace.mutable_data_ptr();
  const int64_t needed = carve(work, x, other, std::max(pairs[0].numel(), pairs[2].numel()), base);
  check_vector(workspace, "workspace", ScalarType::Byte, needed);
  const PairListResult found =
      (is_double(x) ? run<double> : run<float>)(emb, ref, pairs, margins, deduplicate, threads, work);

  // The penalty is linear in s (common/hard_pair.h); rounding may not make a sum of penalties negative.
  const double* m = margins.const_data_ptr<double>();
  const double nan_flag = found.finite ? 0.0 : std::numeric_limits<double>::quiet_NaN();
  const ListedSums &p = found.positive, &q = found.negative;
  sums.mutable_data_ptr<double>()[0] = std::max(m[0] * double(p.hard) - p.similarity_sum, 0.0) + nan_flag;
  sums.mutable_data_ptr<double>()[1] = std::max(q.similarity_sum - m[1] * double(q.hard), 0.0) + nan_flag;
  counts.mutable_data_ptr<int64_t>()[0] = p.hard;
  counts.mutable_data_ptr<int64_t>()[1] = q.hard;
  numbers.mutable_data_ptr<int64_t>()[0] = p.listed;
  numbers.mutable_data_ptr<int64_t>()[1] = q.listed;
}

}  // namespace
}  // namespace tcm::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(tcm_kernels, m) {
  m.def(
      "_cpu_pair_list_sums(Tensor(a!)[] emb, Tensor(b!)[] ref, Tensor[] pairs, Tensor margins, "
      "bool deduplicate, int threads, Tensor(c!) sums, Tensor(d!) counts, Tensor(e!) listed, "
      "Tensor(f!) workspace) -> ()");
  m.def("_cpu_pair_list_workspace_bytes(Tensor emb, Tensor? ref, int pairs) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(tcm_kernels, CPU, m) {
  m.impl("_cpu_pair_list_sums", TORCH_BOX(&tcm::cpu::pair_list_sums_op));
  m.impl("_cpu_pair_list_workspace_bytes", TORCH_BOX(&tcm::cpu::workspace_bytes_op));
}
