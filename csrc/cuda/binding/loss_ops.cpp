// The private ops of the loss in the CUDA backend: schemas, checks, and the step from tensors to pointers.
// Only tcm_kernels/backends/cuda.py calls them; it allocates what they write and makes the tensors' device
// current.
//
// Bound like csrc/cpu/binding/loss_ops.cpp, through libtorch's stable ABI and Python's limited API. With
// TCM_EMULATED the same ops take tensors in main memory, for the emulator, in a namespace of their own
// (TCM_OPS in checks.h), so that both libraries can be loaded at once.
#ifndef TCM_EMULATED  // the emulator is loaded as a library, not as a Python module
#undef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#endif
#include <cstdint>
#include <optional>

#include "checks.h"
#include "cuda/loss/forward.h"

namespace tcm::cuda {
namespace {

PartnerSums sums_of(const std::optional<Tensor>& p, const std::optional<Tensor>& q, const Tensor& x) {
  STD_TORCH_CHECK(p.has_value() == q.has_value(), "p and q: expected both or neither");
  if (!p) return {nullptr, nullptr};
  check_vector(*p, "p", ScalarType::Float, x.numel(), x);
  check_vector(*q, "q", ScalarType::Float, x.numel(), x);
  return {p->mutable_data_ptr<float>(), q->mutable_data_ptr<float>()};
}

SideInput side_input(const Tensor& x, const Tensor& order, const Tensor& label,
                     const std::optional<Tensor>& self_index, const std::optional<Tensor>& p,
                     const std::optional<Tensor>& q) {
  check_rows(x, "embeddings");
  const int64_t n = x.size(0);
  check_vector(order, "order", ScalarType::Long, n, x);
  check_vector(label, "label", ScalarType::Long, n, x);
  if (self_index) check_vector(*self_index, "self_index", ScalarType::Int, n, x);
  return {x.const_data_ptr(), order.const_data_ptr<int64_t>(), label.const_data_ptr<int64_t>(),
          self_index ? self_index->const_data_ptr<int32_t>() : nullptr, sums_of(p, q, x)};
}

Choices choices_of(int64_t pool_bytes, int64_t list_most, int64_t max_candidates, int64_t screening) {
  STD_TORCH_CHECK(pool_bytes > 0 && list_most >= 0 && list_most <= kTile * kTile && max_candidates >= 0 &&
                      screening >= 0 && screening <= Choices::full,
                  "pool_bytes, list_most, max_candidates or screening: out of range");
  return {pool_bytes, static_cast<int>(list_most), static_cast<int>(max_candidates),
          static_cast<decltype(Choices::screening)>(screening)};
}

int64_t workspace_bytes_op(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool need_columns,
                           int64_t pool_bytes, int64_t list_most, int64_t max_candidates, int64_t screening) {
  const Choices choices = choices_of(pool_bytes, list_most, max_candidates, screening);
  Workspace work;
  return work.carve(Plan::make(rows, columns, dim, is_self, need_columns, choices, count_multiprocessors()),
                    nullptr);
}

void pair_sums_op(Tensor emb, Tensor order, Tensor label, std::optional<Tensor> self_index,
                  std::optional<Tensor> p, std::optional<Tensor> q, std::optional<Tensor> ref,
                  std::optional<Tensor> ref_order, std::optional<Tensor> ref_label,
                  std::optional<Tensor> ref_self_index, std::optional<Tensor> ref_p,
                  std::optional<Tensor> ref_q, Tensor margins, bool highest, int64_t pool_bytes,
                  int64_t list_most, int64_t max_candidates, int64_t screening, Tensor sums, Tensor counts,
                  Tensor nan_flag, Tensor workspace) {
  const Device device = device_of(emb);
  const Dtype dtype = dtype_of(emb);
  // Without a reference set a sample has the same position on both sides.
  STD_TORCH_CHECK(ref.has_value() == self_index.has_value(),
                  "self_index: expected with a reference set, and only then");
  const SideInput rows = side_input(emb, order, label, self_index, p, q);
  SideInput columns = rows;
  if (ref) {
    STD_TORCH_CHECK(ref_order && ref_label && ref_self_index,
                    "ref: expected its order, its labels and self_index");
    STD_TORCH_CHECK(ref->scalar_type() == emb.scalar_type() && on_one_device(*ref, emb) && ref->dim() == 2 &&
                        ref->size(1) == emb.size(1),
                    "ref: expected the columns, dtype and device of emb");
    columns = side_input(*ref, *ref_order, *ref_label, ref_self_index, ref_p, ref_q);
  }
  check_vector(margins, "margins", ScalarType::Double, 2, emb);
  check_vector(sums, "sums", ScalarType::Double, 2, emb);
  check_vector(counts, "counts", ScalarType::Long, 2, emb);
  check_vector(nan_flag, "nan_flag", ScalarType::Double, 1, emb);
  const Choices choices = choices_of(pool_bytes, list_most, max_candidates, screening);
  const Plan plan = Plan::make(emb.size(0), ref ? ref->size(0) : emb.size(0), emb.size(1), !ref,
                               (ref ? ref_p : p).has_value(), choices, device.multiprocessors);
  Workspace work;
  check_vector(workspace, "workspace", ScalarType::Byte, work.carve(plan, nullptr), emb);
  forward(device, plan, choices, dtype, highest ? Precision::highest : Precision::lower, rows, columns,
          margins.const_data_ptr<double>(), workspace.mutable_data_ptr(),
          {sums.mutable_data_ptr<double>(), counts.mutable_data_ptr<int64_t>(),
           nan_flag.mutable_data_ptr<double>()});
}

// The gradient of one side.
void pair_sums_backward_op(Tensor grad_sums, Tensor nan_flag, Tensor x, Tensor p, Tensor q, int64_t ordered,
                           Tensor grad) {
  const Device device = device_of(x);
  check_rows(x, "embeddings");
  check_vector(grad_sums, "grad_sums", ScalarType::Double, 2, x);
  check_vector(nan_flag, "nan_flag", ScalarType::Double, 1, x);
  check_vector(grad, "grad", x.scalar_type(), x.numel(), x);
  const PartnerSums sums = sums_of(p, q, x);
  launch_normalize_backward(device, dtype_of(x), x.const_data_ptr(), sums, nan_flag.const_data_ptr<double>(),
                            grad_sums.const_data_ptr<double>(), static_cast<int>(ordered),
                            grad.mutable_data_ptr(), static_cast<int>(x.size(0)),
                            shape_of(x.const_data_ptr(), x.size(1), dtype_of(x)));
}

}  // namespace
}  // namespace tcm::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(TCM_OPS, m) {
  m.def(
      "_cuda_workspace_bytes(int rows, int columns, int dim, bool is_self, bool need_columns, "
      "int pool_bytes, int list_most, int max_candidates, int screening) -> int");
  m.def(
      "_cuda_pair_sums(Tensor emb, Tensor order, Tensor label, Tensor? self_index, Tensor(a!)? p, "
      "Tensor(b!)? q, "
      "Tensor? ref, Tensor? ref_order, Tensor? ref_label, Tensor? ref_self_index, Tensor(c!)? ref_p, "
      "Tensor(d!)? ref_q, Tensor margins, "
      "bool highest, int pool_bytes, int list_most, int max_candidates, int screening, Tensor(e!) sums, "
      "Tensor(f!) counts, Tensor(g!) nan_flag, Tensor(h!) workspace) -> ()");
  m.def(
      "_cuda_pair_sums_backward(Tensor grad_sums, Tensor nan_flag, Tensor x, Tensor p, Tensor q, int "
      "ordered, "
      "Tensor(a!) grad) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(TCM_OPS, TCM_DISPATCH_KEY, m) {
  m.impl("_cuda_pair_sums", TORCH_BOX(&tcm::cuda::pair_sums_op));
  m.impl("_cuda_pair_sums_backward", TORCH_BOX(&tcm::cuda::pair_sums_backward_op));
}

STABLE_TORCH_LIBRARY_IMPL(TCM_OPS, CompositeExplicitAutograd, m) {
  m.impl("_cuda_workspace_bytes", TORCH_BOX(&tcm::cuda::workspace_bytes_op));
}

#ifndef TCM_EMULATED
PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
#endif
