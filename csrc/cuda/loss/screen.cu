#include "screen.cuh"

#include "kernels.h"

namespace tcm::cuda {

void launch_probe(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, int* samples) {
  launch("probe", probe_kernel, device, {kSamples}, kTileThreads, shared_bytes(kSweepHead, device.stages),
         rows, columns, shape, margins, device.stages, samples);
}

void launch_sweep(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, const SuperTile& part, const Decisions& to, const ScreenState& state,
                  int64_t programs) {
  launch("sweep", sweep_kernel, device, {programs}, kTileThreads, shared_bytes(kSweepHead, device.stages),
         rows, columns, shape, margins, device.stages, part, to, state);
}

}  // namespace tcm::cuda
