#include "finalize.cuh"

#include "kernels.h"
#include "normalize_backward.cuh"

namespace tcm::cuda {

void launch_finalize(const Device& device, const Partial& partial, int64_t blocks, const int* not_finite,
                     const double* margins, double* sums, int64_t* counts, double* nan_flag) {
  launch("finalize", finalize_kernel, device, {1}, kFinalizeThreads, kFinalizeBytes, partial, blocks,
         not_finite, margins, sums, counts, nan_flag);
}

void launch_normalize_backward(const Device& device, Dtype dtype, const void* x, const PartnerSums& sums,
                               const double* nan_flag, const double* grad_sums, int ordered, void* grad,
                               int n, const Shape& shape) {
  constexpr int kRows = kNormalizeBackwardThreads / kWarp;
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    launch("normalize_backward", normalize_backward_kernel<T>, device, {ceil_div(n, kRows)},
           kNormalizeBackwardThreads, 0, static_cast<const T*>(x), sums, nan_flag, grad_sums, ordered,
           static_cast<T*>(grad), n, shape);
  });
}

}  // namespace tcm::cuda
