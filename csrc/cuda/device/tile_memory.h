// Shared memory of a block that multiplies tiles: the kernel's own data (head), then the buffers, from a
// multiple of 128 bytes on.
#pragma once

#include "tiles.h"

namespace tcm::cuda {

constexpr int kStepBytes = 64;  // of every row, copied per step
constexpr int kSideBytes = kTile * kStepBytes;
constexpr int kStageBytes = 2 * kSideBytes;

constexpr int buffers_offset(int head_bytes) { return (head_bytes + 127) / 128 * 128; }
constexpr int shared_bytes(int head_bytes, int stages) {
  return buffers_offset(head_bytes) + stages * kStageBytes;
}

}  // namespace tcm::cuda
