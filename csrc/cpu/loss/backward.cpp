#include "backward.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace tcm::cpu {
namespace {

template <class Half>
void narrow(const float* row, int64_t dim, Half* out) {
  for (int64_t k = 0; k < dim; ++k) out[k] = Half(row[k]);
}

}  // namespace

template <class T>
void normalize_backward(const RawRows& raw, PartnerSums<const T> sums, double w_p, double w_q,
                        int64_t threads, void* grad) {
  constexpr int64_t kRowsPerTask = 64;
  for_each_task((raw.rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](int64_t task, int64_t) {
    const Simd<T>& loops = simd<T>();
    const bool converts = raw.dtype != scalar_type<T>();
    std::vector<T> buffer(converts ? 2 * raw.dim : 0);
    const int64_t last = std::min(raw.rows, (task + 1) * kRowsPerTask);
    for (int64_t i = task * kRowsPerTask; i < last; ++i) {
      const int64_t at = i * raw.dim;
      const T* x = load_row<T>(raw, i, buffer.data());
      T* out = converts ? buffer.data() + raw.dim : static_cast<T*>(grad) + at;
      const double norm = std::sqrt(loops.squared_norm(x, raw.dim));
      loops.normalize_backward(x, sums.positive + at, sums.negative + at, w_p, w_q,
                               1.0 / std::max(norm, kNormFloor), norm >= kNormFloor, out, raw.dim);
      if constexpr (sizeof(T) == sizeof(float)) {
        if (raw.dtype == ScalarType::BFloat16) {
          narrow(out, raw.dim, static_cast<torch::headeronly::BFloat16*>(grad) + at);
        } else if (raw.dtype == ScalarType::Half) {
          narrow(out, raw.dim, static_cast<torch::headeronly::Half*>(grad) + at);
        }
      }
    }
  });
}

template void normalize_backward<float>(const RawRows&, PartnerSums<const float>, double, double, int64_t,
                                        void*);
template void normalize_backward<double>(const RawRows&, PartnerSums<const double>, double, double, int64_t,
                                         void*);

}  // namespace tcm::cpu
