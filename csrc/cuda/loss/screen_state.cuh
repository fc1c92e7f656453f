// What screening has found, by which kernels see whether there is anything for them.
#pragma once

#include "cuda/device/device.h"
#include "sides.h"

namespace tcm::cuda {

// Whether the sample has left more candidates than it may. All threads of a warp ask.
TCM_DEVICE bool is_useless(const Found& found) {
  return warp_sum(lane_index() < kSamples ? found.samples[lane_index()] : 0) > found.most_left;
}

// Whether the sweep has run and left no tile of a super-tile to be decided in full precision.
TCM_DEVICE bool is_sparse(const Found& found) {
  return found.screened && !is_useless(found) && *found.crowded == 0;
}

}  // namespace tcm::cuda
