// The private ops of the CPU backend's loss, and the Python module that also holds those of
// histogram_ops.cpp: schemas, checks, and the step from tensors to pointers. tcm_kernels/backends/cpu.py
// calls them and allocates what they write; only tests call the ops that encode rows or multiply codes.
//
// Bound through libtorch's stable ABI and Python's limited API: one binary for every torch >= 2.10 and every
// Python >= 3.10. Importing the module runs the registrations of the two files and nothing else.
#undef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/loss/backward.h"
#include "cpu/loss/centroids.h"
#include "cpu/loss/forward.h"
#include "cpu/loss/quantize.h"
#include "huge_pages.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kStages = 5;

int64_t compute_bytes(const Tensor& emb) { return is_double(emb) ? sizeof(double) : sizeof(float); }

Plan plan_of(const Tensor& emb, const std::optional<Tensor>& ref, int64_t threads) {
  return Plan::make(emb.size(0), ref ? ref->size(0) : emb.size(0), emb.size(1), !ref, compute_bytes(emb),
                    threads, machine_coding());
}

// One side of the pairs: embeddings, labels, and P and Q where its gradient is wanted.
template <class T>
struct LossSide {
  RawRows raw;
  const int64_t* labels;
  PartnerSums<T> sums{nullptr, nullptr};
};

// A side's tensors: embeddings, labels, and P and Q where wanted.
template <class T>
LossSide<T> side_of(const std::vector<Tensor>& tensors) {
  STD_TORCH_CHECK(tensors.size() == 2 || tensors.size() == 4,
                  "emb and ref: expected 2 or 4 tensors each, got ", tensors.size());
  const Tensor &x = tensors[0], &labels = tensors[1];
  check_rows(x, "embeddings");
  check_vector(labels, "labels", ScalarType::Long, x.size(0));
  LossSide<T> side{raw_rows(x), labels.const_data_ptr<int64_t>()};
  if (tensors.size() == 4) side.sums = partner_sums_of<T>(tensors[2], tensors[3], x);
  return side;
}

template <class T>
void run_pair_sums(const Plan& plan, const std::vector<Tensor>& emb, const std::vector<Tensor>& ref,
                   const Tensor& margins, std::optional<int64_t> self_offset, bool add, const Tensor& sums,
                   const Tensor& counts, const Tensor& workspace,
                   const std::optional<Tensor>& stage_seconds) {
  Workspace work;
  const int64_t needed = work.carve(plan, workspace.mutable_data_ptr());
  check_vector(workspace, "workspace", ScalarType::Byte, needed);
  prefer_huge_pages(workspace.mutable_data_ptr(), needed);
  const LossSide<T> rows = side_of<T>(emb);
  LossSide<T> columns{rows.raw, nullptr};
  if (!ref.empty()) columns = side_of<T>(ref);
  for (const LossSide<T>& side : {rows, columns}) {
    const int64_t bytes = side.raw.rows * side.raw.dim * int64_t(sizeof(T));
    for (T* memory : {side.sums.positive, side.sums.negative}) {
      if (memory != nullptr && !add) prefer_huge_pages(memory, bytes);
    }
  }
  const double* m = margins.const_data_ptr<double>();
  const ForwardResult result =
      forward<T>(plan, rows.raw, rows.labels, columns.raw, columns.labels, self_offset.value_or(-1),
                 Margins<double>{m[0], m[1]}, add, work, rows.sums, columns.sums);
  double* s = sums.mutable_data_ptr<double>();
  int64_t* n = counts.mutable_data_ptr<int64_t>();
  s[0] = result.positive_sum;
  s[1] = result.negative_sum;
  n[0] = result.positives;
  n[1] = result.negatives;
  if (stage_seconds) {
    const StageTimes& t = result.times;
    const double times[kStages] = {t.order, t.prepare, t.probe, t.screen, t.accumulate};
    std::copy_n(times, kStages, stage_seconds->mutable_data_ptr<double>());
  }
}

// `ref` is empty in the self case. P and Q are written, or with `add` added to.
void pair_sums_op(std::vector<Tensor> emb, std::vector<Tensor> ref, Tensor margins,
                  std::optional<int64_t> self_offset, bool add, int64_t threads, Tensor sums, Tensor counts,
                  Tensor workspace, std::optional<Tensor> stage_seconds) {
  STD_TORCH_CHECK(!emb.empty(), "emb: expected embeddings and labels");
  const Tensor& x = emb[0];
  check_rows(x, "embeddings");
  std::optional<Tensor> other;
  if (!ref.empty()) {
    other = ref[0];
    check_same_columns(*other, x);
  }
  STD_TORCH_CHECK(!self_offset || (other && *self_offset >= 0 && *self_offset + x.size(0) <= other->size(0)),
                  "self_offset: expected the rows of emb to lie within ref");
  check_vector(margins, "margins", ScalarType::Double, 2);
  check_vector(sums, "sums", ScalarType::Double, 2);
  check_vector(counts, "counts", ScalarType::Long, 2);
  if (stage_seconds) check_vector(*stage_seconds, "stage_seconds", ScalarType::Double, kStages);
  const auto run = is_double(x) ? run_pair_sums<double> : run_pair_sums<float>;
  run(plan_of(x, other, threads), emb, ref, margins, self_offset, add, sums, counts, workspace,
      stage_seconds);
}

template <class T>
void run_backward(const Tensor& grad_sums, const Tensor& x, const Tensor& p, const Tensor& q, int64_t ordered,
                  int64_t threads, const Tensor& grad) {
  const double* g = grad_sums.const_data_ptr<double>();
  const PartnerSums<T> sums = partner_sums_of<T>(p, q, x);
  // dΣ+/dx̂_i = -P_i and dΣ-/dx̂_i = Q_i, for every ordered pair that row i is in.
  normalize_backward<T>(raw_rows(x), {sums.positive, sums.negative}, -double(ordered) * g[0],
                        double(ordered) * g[1], threads, grad.mutable_data_ptr());
}

// The gradient of one side.
void pair_sums_backward_op(Tensor grad_sums, Tensor x, Tensor p, Tensor q, int64_t ordered, int64_t threads,
                           Tensor grad) {
  check_rows(x, "embeddings");
  check_vector(grad_sums, "grad_sums", ScalarType::Double, 2);
  check_vector(grad, "grad", x.scalar_type(), x.numel());
  prefer_huge_pages(grad.mutable_data_ptr(), grad.numel() * int64_t(grad.element_size()));
  const auto run = is_double(x) ? run_backward<double> : run_backward<float>;
  run(grad_sums, x, p, q, ordered, threads, grad);
}

int64_t workspace_bytes_op(Tensor emb, std::optional<Tensor> ref, int64_t threads) {
  Workspace work;
  return work.carve(plan_of(emb, ref, threads), nullptr);
}

std::string simd_name_op() { return simd_name(); }

std::string screening_name_op() { return coding_name(); }

// A plan for rows (K, D) and codes in int8, with |q| <= limit, in bfloat16, or in the dtype of the rows.
Plan coding_plan(const Tensor& rows, const Tensor& codes, int64_t limit) {
  check_rows(rows, "rows");
  STD_TORCH_CHECK(rows.scalar_type() == ScalarType::Float || is_double(rows),
                  "rows: expected float32 or float64");
  STD_TORCH_CHECK(
      codes.is_cpu() && codes.dim() == 2 && codes.is_contiguous() && codes.size(1) >= rows.size(1),
      "codes: expected a contiguous CPU matrix of at least D columns");
  Plan plan{};
  plan.dim = rows.size(1);
  plan.code_dim = codes.size(1);
  const ScalarType dtype = codes.scalar_type();
  if (dtype == ScalarType::Char) {
    STD_TORCH_CHECK(limit > 0 && limit <= kCodeLimit, "limit: expected 1 to ", kCodeLimit);
    plan.coding = {Coding::int8, int(limit)};
  } else if (dtype == ScalarType::BFloat16) {
    plan.coding = {Coding::bfloat16, 0};
  } else {
    STD_TORCH_CHECK(dtype == rows.scalar_type() && codes.size(1) == rows.size(1),
                    "codes: expected int8, bfloat16, or the dtype and columns of rows");
  }
  return plan;
}

// The codes of unit rows (N, D) as `pack_rows` makes them, for tests of the certificate.
template <class T>
void run_encode(const Plan& plan, const Tensor& rows, const Tensor& codes, const Tensor& scales,
                const Tensor& errors) {
  for (int64_t i = 0; i < rows.size(0); ++i) {
    const RowCode code = encode(plan, rows.const_data_ptr<T>() + i * plan.dim,
                                static_cast<char*>(codes.mutable_data_ptr()) + i * plan.code_bytes());
    scales.mutable_data_ptr<float>()[i] = code.scale;
    errors.mutable_data_ptr<float>()[i] = code.error;
  }
}

void encode_op(Tensor rows, int64_t limit, Tensor codes, Tensor scales, Tensor errors) {
  const Plan plan = coding_plan(rows, codes, limit);
  STD_TORCH_CHECK(plan.codes() && codes.size(0) == rows.size(0), "codes: expected a code for each row");
  check_vector(scales, "scales", ScalarType::Float, rows.size(0));
  check_vector(errors, "errors", ScalarType::Float, rows.size(0));
  (is_double(rows) ? run_encode<double> : run_encode<float>)(plan, rows, codes, scales, errors);
}

// The same for one centroid of all rows.
template <class T>
void run_encode_class(const Plan& plan, const Tensor& rows, const Tensor& code, const Tensor& scale,
                      const Tensor& error) {
  PackedRows packed{};
  packed.unit = const_cast<T*>(rows.const_data_ptr<T>());
  std::vector<T> mean(plan.dim);
  const RowCode row = quantize_centroid(plan, packed, 0, rows.size(0), mean.data(), code.mutable_data_ptr());
  scale.mutable_data_ptr<float>()[0] = row.scale;
  error.mutable_data_ptr<float>()[0] = row.error;
}

void encode_class_op(Tensor rows, int64_t limit, Tensor code, Tensor scale, Tensor error) {
  const Plan plan = coding_plan(rows, code, limit);
  STD_TORCH_CHECK(code.size(0) == 1 && rows.size(0) > 0, "code: expected one for all rows");
  check_vector(scale, "scale", ScalarType::Float, 1);
  check_vector(error, "error", ScalarType::Float, 1);
  (is_double(rows) ? run_encode_class<double> : run_encode_class<float>)(plan, rows, code, scale, error);
}

// Products (K, L) of two matrices of codes, over all columns, for tests.
void multiply_codes_op(Tensor x, Tensor r, Tensor products) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 2 && x.is_contiguous() && r.is_cpu() && r.dim() == 2 &&
                      r.is_contiguous() && r.size(1) == x.size(1) && r.scalar_type() == dtype &&
                      (dtype == ScalarType::Char || dtype == ScalarType::BFloat16),
                  "x and r: expected contiguous CPU matrices of codes with the same columns");
  check_vector(products, "products", ScalarType::Int, x.size(0) * r.size(0));
  Plan plan{};
  plan.code_dim = x.size(1);
  plan.coding.kind = dtype == ScalarType::Char ? Coding::int8 : Coding::bfloat16;
  multiply_codes(plan, x.const_data_ptr(), x.size(0), r.const_data_ptr(), r.size(0), x.size(1),
                 products.mutable_data_ptr<int32_t>());
}

// Products of one int8 code x (K) with the rows index (L) of `codes`, for tests.
void code_dots_op(Tensor x, Tensor codes, Tensor index, Tensor products) {
  STD_TORCH_CHECK(codes.is_cpu() && codes.dim() == 2 && codes.is_contiguous() &&
                      codes.scalar_type() == ScalarType::Char && codes.size(1) % 64 == 0,
                  "codes: expected a contiguous CPU int8 matrix with a multiple of 64 columns");
  check_vector(x, "x", ScalarType::Char, codes.size(1));
  check_vector(index, "index", ScalarType::Int, index.numel());
  check_vector(products, "products", ScalarType::Int, index.numel());
  const int32_t* named = index.const_data_ptr<int32_t>();
  for (int64_t k = 0; k < index.numel(); ++k) {
    STD_TORCH_CHECK(named[k] >= 0 && named[k] < codes.size(0), "index: expected rows of codes");
  }
  simd<float>().code_dots(x.const_data_ptr<int8_t>(), codes.const_data_ptr<int8_t>(), named, index.numel(),
                          codes.size(1), products.mutable_data_ptr<int32_t>());
}

}  // namespace
}  // namespace tcm::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(tcm_kernels, m) {
  m.def(
      "_cpu_pair_sums(Tensor(a!)[] emb, Tensor(b!)[] ref, Tensor margins, int? self_offset, bool add, "
      "int threads, Tensor(c!) sums, Tensor(d!) counts, Tensor(e!) workspace, "
      "Tensor(f!)? stage_seconds) -> ()");
  m.def(
      "_cpu_pair_sums_backward(Tensor grad_sums, Tensor x, Tensor p, Tensor q, int ordered, int threads, "
      "Tensor(a!) grad) -> ()");
  m.def("_cpu_workspace_bytes(Tensor emb, Tensor? ref, int threads) -> int");
  m.def("_cpu_encode(Tensor rows, int limit, Tensor(a!) codes, Tensor(b!) scales, Tensor(c!) errors) -> ()");
  m.def(
      "_cpu_encode_class(Tensor rows, int limit, Tensor(a!) code, Tensor(b!) scale, Tensor(c!) error) -> ()");
  m.def("_cpu_multiply_codes(Tensor x, Tensor r, Tensor(a!) products) -> ()");
  m.def("_cpu_code_dots(Tensor x, Tensor codes, Tensor index, Tensor(a!) products) -> ()");
  m.def("_cpu_simd_name() -> str");
  m.def("_cpu_screening_name() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(tcm_kernels, CPU, m) {
  m.impl("_cpu_pair_sums", TORCH_BOX(&tcm::cpu::pair_sums_op));
  m.impl("_cpu_pair_sums_backward", TORCH_BOX(&tcm::cpu::pair_sums_backward_op));
  m.impl("_cpu_encode", TORCH_BOX(&tcm::cpu::encode_op));
  m.impl("_cpu_encode_class", TORCH_BOX(&tcm::cpu::encode_class_op));
  m.impl("_cpu_multiply_codes", TORCH_BOX(&tcm::cpu::multiply_codes_op));
  m.impl("_cpu_code_dots", TORCH_BOX(&tcm::cpu::code_dots_op));
  m.impl("_cpu_workspace_bytes", TORCH_BOX(&tcm::cpu::workspace_bytes_op));
}

STABLE_TORCH_LIBRARY_IMPL(tcm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cpu_simd_name", TORCH_BOX(&tcm::cpu::simd_name_op));
  m.impl("_cpu_screening_name", TORCH_BOX(&tcm::cpu::screening_name_op));
}

PyMODINIT_FUNC PyInit__cpu() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
