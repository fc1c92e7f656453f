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
#include <limits>
#include <vector>

#include "checks.h"
#include "cuda/loss/forward.h"

namespace tcm::cuda {
namespace {

PartnerSums sums_of(const Tensor& p, const Tensor& q, const Tensor& x) {
  check_vector(p, "p", ScalarType::Float, x.numel(), x);
  check_vector(q, "q", ScalarType::Float, x.numel(), x);
  return {p.mutable_data_ptr<float>(), q.mutable_data_ptr<float>()};
}

// A side's tensors: x, order, label; self_index with a reference set; P and Q where the gradient is wanted.
SideInput side_input(const std::vector<Tensor>& side, bool is_self) {
  const size_t first_sum = is_self ? 3 : 4;
  STD_TORCH_CHECK(side.size() == first_sum || side.size() == first_sum + 2, "rows and columns: expected ",
                  first_sum, " or ", first_sum + 2, " tensors each, got ", side.size());
  const Tensor &x = side[0], &order = side[1], &label = side[2];
  check_rows(x, "embeddings");
  const int64_t n = x.size(0);
  check_vector(order, "order", ScalarType::Long, n, x);
  check_vector(label, "label", ScalarType::Long, n, x);
  SideInput input{x.const_data_ptr(),
                  order.const_data_ptr<int64_t>(),
                  label.const_data_ptr<int64_t>(),
                  nullptr,
                  {nullptr, nullptr}};
  if (!is_self) {
    check_vector(side[3], "self_index", ScalarType::Int, n, x);
    input.self_index = side[3].const_data_ptr<int32_t>();
  }
  if (side.size() > first_sum) input.sums = sums_of(side[first_sum], side[first_sum + 1], x);
  return input;
}

// `parts` has five numbers for each super-tile: first tile and number of tiles of its rows, likewise of its
// columns, and whether it lies on the diagonal.
Plan plan_of(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool screened, bool by_column,
             int64_t edge, int64_t programs, int64_t list_most, int64_t max_candidates,
             const std::vector<int64_t>& parts) {
  constexpr size_t kNumbers = 5;
  STD_TORCH_CHECK(parts.size() % kNumbers == 0, "parts: expected ", kNumbers, " numbers for each");
  const auto narrow = [](int64_t number) {
    STD_TORCH_CHECK(number >= 0 && number <= std::numeric_limits<int32_t>::max(), "plan: got ", number);
    return static_cast<int>(number);
  };
  Plan plan{rows,      columns,      narrow(dim), is_self,           screened,
            by_column, narrow(edge), programs,    narrow(list_most), narrow(max_candidates),
            {}};
  for (size_t i = 0; i < parts.size(); i += kNumbers) {
    plan.parts.push_back({narrow(parts[i]), narrow(parts[i + 1]), narrow(parts[i + 2]), narrow(parts[i + 3]),
                          parts[i + 4] != 0});
  }
  const char* fault = plan.fault();
  STD_TORCH_CHECK(fault == nullptr, "plan: ", fault);
  return plan;
}

int64_t multiprocessors_op() { return count_multiprocessors(); }

int64_t workspace_bytes_op(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool screened,
                           bool by_column, int64_t edge, int64_t programs, int64_t list_most,
                           int64_t max_candidates, std::vector<int64_t> parts) {
  Workspace work;
  return work.carve(plan_of(rows, columns, dim, is_self, screened, by_column, edge, programs, list_most,
                            max_candidates, parts),
                    nullptr);
}

void pair_sums_op(std::vector<Tensor> row_side, std::vector<Tensor> column_side, Tensor margins, bool highest,
                  bool screened, bool by_column, int64_t edge, int64_t programs, int64_t list_most,
                  int64_t max_candidates, std::vector<int64_t> parts, Tensor sums, Tensor counts,
                  Tensor nan_flag, Tensor workspace) {
  const bool is_self = column_side.empty();
  const SideInput rows = side_input(row_side, is_self);
  const SideInput columns = is_self ? rows : side_input(column_side, false);
  const Tensor &emb = row_side[0], &other = is_self ? emb : column_side[0];
  check_columns(other, emb);
  const Device device = device_of(emb);
  const Dtype dtype = dtype_of(emb);
  check_vector(margins, "margins", ScalarType::Double, 2, emb);
  check_vector(sums, "sums", ScalarType::Double, 2, emb);
  check_vector(counts, "counts", ScalarType::Long, 2, emb);
  check_vector(nan_flag, "nan_flag", ScalarType::Double, 1, emb);
  const Plan plan = plan_of(emb.size(0), other.size(0), emb.size(1), is_self, screened, by_column, edge,
                            programs, list_most, max_candidates, parts);
  Workspace work;
  check_vector(workspace, "workspace", ScalarType::Byte, work.carve(plan, nullptr), emb);
  forward(device, plan, dtype, highest ? Precision::highest : Precision::lower, rows, columns,
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
  m.def("_cuda_multiprocessors() -> int");
  m.def(
      "_cuda_workspace_bytes(int rows, int columns, int dim, bool is_self, bool screened, bool by_column, "
      "int edge, int programs, int list_most, int max_candidates, int[] parts) -> int");
  m.def(
      "_cuda_pair_sums(Tensor(a!)[] rows, Tensor(b!)[] columns, Tensor margins, bool highest, bool screened, "
      "bool by_column, int edge, int programs, int list_most, int max_candidates, int[] parts, "
      "Tensor(c!) sums, Tensor(d!) counts, Tensor(e!) nan_flag, Tensor(f!) workspace) -> ()");
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
  m.impl("_cuda_multiprocessors", TORCH_BOX(&tcm::cuda::multiprocessors_op));
  m.impl("_cuda_workspace_bytes", TORCH_BOX(&tcm::cuda::workspace_bytes_op));
}

#ifndef TCM_EMULATED
PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
#endif
