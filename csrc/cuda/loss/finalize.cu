#include "finalize.cuh"

#include "normalize_backward.cuh"
#include "kernels.h"

namespace tcm::cuda {

void launch_finish(const Device& device, const Partial& partial, int64_t blocks, const int* not_finite,
                   const double* margins, double* sums, int64_t* counts, double* poison) {
  launch("finish", finish_kernel, device, {1}, kFinishThreads, kFinishBytes, partial, blocks, not_finite,
         margins, sums, counts, poison);
}

void launch_chain(const Device& device, Dtype dtype, const void* x, const Sums& sums, const double* poison,
                  const double* grad_sums, int ordered, void* grad, int n, const Shape& shape) {
  constexpr int kRows = kChainThreads / kWarp;
  with_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    launch("chain", chain_kernel<T>, device, {ceil_div(n, kRows)}, kChainThreads, 0, static_cast<const T*>(x),
           sums, poison, grad_sums, ordered, static_cast<T*>(grad), n, shape);
  });
}

}  // namespace tcm::cuda
