// Finish: partial sums to the result, in a fixed order, by one block; and what the backward reads.
#pragma once

#include "rows.cuh"

namespace tcm::cuda {

constexpr int kFinishThreads = 256;
constexpr int kFinishBytes = kFinishThreads / kWarp * static_cast<int>(sizeof(double) + sizeof(int64_t)) * 2;

// Penalties were measured from the thresholds: what these are off the margins is added for every pair.
// `poison` becomes 0, or NaN where an embedding is not finite.
TCM_KERNEL(kFinishThreads, 1)
finish_kernel(TCM_PARAMETER(Partial) partial, int64_t blocks, const int* not_finite, const double* margins,
              double* sums, int64_t* counts, double* poison) {
  constexpr int kWarps = kFinishThreads / kWarp;
  const Margins<double> m = margins_at(margins);
  const Margins<float> limits = thresholds<float>(m);
  const double beyond[2] = {m.plus - double{limits.plus}, double{limits.minus} - m.minus};
  const double poisoned = *not_finite != 0 ? NAN : 0.0;
  for (int sign = 0; sign < 2; ++sign) {
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t b = thread_index(); b < blocks; b += kFinishThreads) {
      sum += partial.sums[2 * b + sign];
      count += partial.counts[2 * b + sign];
    }
    const int at = sign * kWarps * static_cast<int>(sizeof(double));
    sum = block_sum(sum, shared_memory<double>(at), kWarps);
    count =
        block_sum(count, shared_memory<int64_t>(at + 2 * kWarps * static_cast<int>(sizeof(double))), kWarps);
    if (thread_index() == 0) {
      sums[sign] = (count > 0 ? sum + static_cast<double>(count) * beyond[sign] : 0.0) + poisoned;
      counts[sign] = count;
    }
  }
  if (thread_index() == 0) *poison = poisoned;
}

}  // namespace tcm::cuda
