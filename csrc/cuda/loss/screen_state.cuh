// Whether kernels have work, from what screening has found.
#pragma once

#include "cuda/device/device.h"
#include "decisions.h"

namespace tcm::cuda {

// Whether the sample has too many candidates for the sweep to run. All lanes must call.
TCM_DEVICE bool is_useless(const ScreenState& state) {
  return warp_sum(lane_index() < kSamples ? state.samples[lane_index()] : 0) > state.max_candidates;
}

// Whether the sweep has run and left no tile of the super-tile to dense_tiles.cuh. All lanes must call.
TCM_DEVICE bool is_sparse(const ScreenState& state) {
  return state.screened && !is_useless(state) && *state.has_dense_tile == 0;
}

}  // namespace tcm::cuda
