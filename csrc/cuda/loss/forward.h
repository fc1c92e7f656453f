// The forward of one call: which kernels run, on what, in which order.
#pragma once

#include "kernels.h"
#include "plan.h"

namespace tcm::cuda {

// What the caller passes for one side.
struct SideInput {
  const void* x;              // (n, dim)
  const int64_t* order;       // (n,)
  const int64_t* label;       // (n,) in that order
  const int32_t* self_index;  // (n,) in that order, or null in the self case
  PartnerSums sums;           // zero, or null where the gradient is not wanted
};

struct Result {
  double* sums;     // (2,)
  int64_t* counts;  // (2,)
  double* nan_flag;
};

// Queues the whole forward and returns. In the self case `columns` equals `rows`. Sums, counts and nan_flag
// are written; P and Q are added to.
void forward(const Device& device, const Plan& plan, Dtype dtype, Precision precision, const SideInput& rows,
             const SideInput& columns, const double* margins, void* workspace, const Result& result);

}  // namespace tcm::cuda
