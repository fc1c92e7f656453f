// Checks of the private ops on their tensors, before they take pointers from them.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>

#include "cuda/device/launch.h"
#include "cuda/device/side.h"

// The ops are torch.ops.<TCM_OPS>._cuda_*.
#ifdef TCM_EMULATED
#define TCM_OPS tcm_kernels_on_cpu
#define TCM_DISPATCH_KEY CPU
#else
#define TCM_OPS tcm_kernels
#define TCM_DISPATCH_KEY CUDA
// Weak, so that the module loads beside a torch without CUDA, which lacks this symbol.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);
#endif

namespace tcm::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Device device_of(const Tensor& x) {
#ifdef TCM_EMULATED
  STD_TORCH_CHECK(x.is_cpu(), "expected tensors in main memory");
  return device_at(nullptr, 0);
#else
  STD_TORCH_CHECK(x.is_cuda() && aoti_torch_get_current_cuda_stream != nullptr,
                  "expected tensors on a CUDA device");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return device_at(stream, x.get_device_index());
#endif
}

constexpr int64_t kMostColumns = 65535 * 64;  // grid.y's limit · fewest columns per block of patterns
// Positions of whole tiles are 32-bit numbers.
constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max() - kTile - 1;

inline bool on_one_device(const Tensor& x, const Tensor& y) {
  return x.is_cuda() == y.is_cuda() && (!x.is_cuda() || x.get_device_index() == y.get_device_index());
}

inline void check_rows(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous(), name, ": expected a contiguous matrix");
  STD_TORCH_CHECK(x.size(0) <= kMostRows && x.size(1) <= kMostColumns, name, ": expected at most ", kMostRows,
                  " rows and ", kMostColumns, " columns");
}

// The reference set of an op whose rows are the embeddings.
inline void check_columns(const Tensor& columns, const Tensor& rows) {
  STD_TORCH_CHECK(columns.scalar_type() == rows.scalar_type() && on_one_device(columns, rows) &&
                      columns.size(1) == rows.size(1),
                  "columns: expected the width, dtype and device of the rows");
}

inline void check_vector(const Tensor& x, const char* name, ScalarType dtype, int64_t length,
                         const Tensor& beside) {
  STD_TORCH_CHECK(
      on_one_device(x, beside) && x.is_contiguous() && x.scalar_type() == dtype && x.numel() == length, name,
      ": expected ", length, " contiguous elements of the op's dtype on the embeddings' device");
}

inline Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    default: STD_TORCH_CHECK(false, "expected float32, float16 or bfloat16 embeddings");
  }
}

}  // namespace tcm::cuda
