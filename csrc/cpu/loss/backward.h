// The backward on the CPU: from P and Q to the gradient of the raw rows.
#pragma once

#include "accumulate.h"
#include "prepare.h"

namespace tcm::cpu {

// grad = (g - (g·x̂) x̂) / ‖x‖, or g / kNormFloor for shorter rows, with g = w_p P + w_q Q, in raw's dtype.
template <class T>
void normalize_backward(const RawRows& raw, PartnerSums<const T> sums, double w_p, double w_q,
                        int64_t threads, void* grad);

}  // namespace tcm::cpu
