// What screening has found, by which kernels see whether there is anything for them.
#pragma once

#include "cuda/device/device.h"
#include "decisions.h"

namespace tcm::cuda {

// Whether the sample has left more candidates than it may. All threads of a warp ask.
TCM_DEVICE bool is_useless(const ScreenState& state) {
  return warp_sum(lane_index() < kSamples ? state.samples[lane_index()] : 0) > state.max_candidates;
}

// Whether the sweep has run and left no tile of a super-tile to be decided in full precision.
TCM_DEVICE bool is_sparse(const ScreenState& state) {
  return state.screened && !is_useless(state) && *state.has_dense_tile == 0;
}

}  // namespace tcm::cuda
