// What host code needs of the device besides launches.
#include "device.h"

namespace tcm::cuda {

void clear_bytes(const Device& device, void* at, int64_t bytes) { clear(device, at, bytes); }

int count_multiprocessors() { return current_device().multiprocessors; }

Device device_at(void* stream, int number) {
  const CurrentDevice device = current_device();
  if (device.number != number) {
    throw std::runtime_error("tcm_kernels: expected tensors on the current CUDA device, " +
                             std::to_string(device.number) + ", not on " + std::to_string(number));
  }
  // With four buffers a block of the sweep, the largest of the loss, takes 75 kB; two have to fit.
  const int stages = device.shared_bytes >= 152 * 1024 ? kMostStages : kFewestStages;
  return {stream, device.multiprocessors, stages, device.shared_bytes};
}

}  // namespace tcm::cuda
