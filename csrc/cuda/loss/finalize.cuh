// Finalize: one block adds up the partial sums in a fixed order, and writes the result and nan_flag.
//
// There is one partial sum per block of `lists`, of four rows, and one per program: 4,360, or 140 kB, from
// N = 16,384 (a whole super-tile) on. A thread reads two 16-byte values in each of 17 rounds, four in flight.
// Predicted: 2 to 4 us, latency alone, under 0.003 U at 32,768 x 512. Not yet measured.
#pragma once

#include "cuda/device/rows.cuh"
#include "decisions.h"

namespace tcm::cuda {

constexpr int kFinalizeThreads = 256;
constexpr int kFinalizeBytes =
    kFinalizeThreads / kWarp * static_cast<int>(sizeof(double) + sizeof(int64_t)) * 2;

template <class T>
struct alignas(16) PairOf {
  T of[2];
};

// Penalties were measured from the float32 thresholds: their distance from the margins is added per hard
// pair. `nan_flag`, which the backward reads, becomes 0, or NaN where a norm is not finite.
TCM_KERNEL(kFinalizeThreads, 1)
finalize_kernel(TCM_PARAMETER(Partial) partial, int64_t blocks, const int* not_finite, const double* margins,
                double* sums, int64_t* counts, double* nan_flag) {
  constexpr int kWarps = kFinalizeThreads / kWarp;
  const Margins<double> m = margins_at(margins);
  const Margins<float> limits = thresholds<float>(m);
  const double beyond[2] = {m.plus - double{limits.plus}, double{limits.minus} - m.minus};
  const double nan_or_zero = *not_finite != 0 ? NAN : 0.0;
  double sum[2] = {};
  int64_t count[2] = {};
#pragma unroll 4
  for (int64_t b = thread_index(); b < blocks; b += kFinalizeThreads) {
    const PairOf<double> sums_of_block = reinterpret_cast<const PairOf<double>*>(partial.sums)[b];
    const PairOf<int64_t> counts_of_block = reinterpret_cast<const PairOf<int64_t>*>(partial.counts)[b];
#pragma unroll
    for (int sign = 0; sign < 2; ++sign) {
      sum[sign] += sums_of_block.of[sign];
      count[sign] += counts_of_block.of[sign];
    }
  }
  for (int sign = 0; sign < 2; ++sign) {
    const int at = sign * kWarps * static_cast<int>(sizeof(double));
    const double all = block_sum(sum[sign], shared_memory<double>(at), kWarps);
    const int64_t pairs = block_sum(
        count[sign], shared_memory<int64_t>(at + 2 * kWarps * static_cast<int>(sizeof(double))), kWarps);
    if (thread_index() == 0) {
      sums[sign] = (pairs > 0 ? all + static_cast<double>(pairs) * beyond[sign] : 0.0) + nan_or_zero;
      counts[sign] = pairs;
    }
  }
  if (thread_index() == 0) *nan_flag = nan_or_zero;
}

}  // namespace tcm::cuda
