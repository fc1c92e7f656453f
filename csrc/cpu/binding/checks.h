// The checks that private ops make of tensors before they take pointers from them.
#pragma once

#include <cstdint>

#include "cpu/loss/accumulate.h"
#include "cpu/loss/prepare.h"
#include "cpu/torch_shim.h"

namespace tcm::cpu {

inline bool is_double(const Tensor& t) { return t.scalar_type() == ScalarType::Double; }

inline void check_rows(const Tensor& x, const char* name) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 2 && x.is_contiguous(), name,
                  ": expected a contiguous CPU matrix");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16,
                  name, ": expected float32, float64, float16 or bfloat16");
}

// Of a reference set.
inline void check_same_columns(const Tensor& ref, const Tensor& emb) {
  check_rows(ref, "ref");
  STD_TORCH_CHECK(ref.size(1) == emb.size(1) && ref.scalar_type() == emb.scalar_type(),
                  "ref: expected the columns and dtype of emb");
}

inline void check_vector(const Tensor& x, const char* name, ScalarType dtype, int64_t length) {
  STD_TORCH_CHECK(x.is_cpu() && x.is_contiguous() && x.scalar_type() == dtype && x.numel() == length, name,
                  ": expected ", length, " contiguous elements of the op's dtype in main memory");
}

// P and Q of x.
template <class T>
PartnerSums<T> partner_sums_of(const Tensor& p, const Tensor& q, const Tensor& x) {
  check_vector(p, "p", scalar_type<T>(), x.numel());
  check_vector(q, "q", scalar_type<T>(), x.numel());
  return {static_cast<T*>(p.mutable_data_ptr()), static_cast<T*>(q.mutable_data_ptr())};
}

inline RawRows raw_rows(const Tensor& x) {
  return {x.const_data_ptr(), x.scalar_type(), x.size(0), x.size(1)};
}

}  // namespace tcm::cpu
