#include "finish.cuh"

#include "chain.cuh"
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
    launch("chain", chain_kernel<T>, device, {(int64_t{n} + kRows - 1) / kRows}, kChainThreads, 0,
           static_cast<const T*>(x), sums, poison, grad_sums, ordered, static_cast<T*>(grad), n, shape);
  });
}

void clear_bytes(const Device& device, void* at, int64_t bytes) { clear(device, at, bytes); }

int count_multiprocessors() { return current_device().multiprocessors; }

Device device_at(void* stream, int number) {
  const CurrentDevice device = current_device();
  if (device.number != number) {
    throw std::runtime_error("tcm_kernels: expected tensors on the current CUDA device, " +
                             std::to_string(device.number) + ", not on " + std::to_string(number));
  }
  // The largest block takes 75 kB with four buffers.
  return {stream, device.multiprocessors, device.shared_bytes >= 152 * 1024 ? kMostStages : kFewestStages};
}

}  // namespace tcm::cuda
