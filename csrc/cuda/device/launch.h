// What a launch needs besides the kernel; plain C++, for the host code that no CUDA compiler sees.
#pragma once

#include <cstdint>

namespace tcm::cuda {

// Where kernels run: torch's stream, how many multiprocessors its device has, how many buffers a block that
// multiplies tiles has, so that two blocks fit into a multiprocessor, and a multiprocessor's shared memory.
struct Device {
  void* stream;
  int multiprocessors;
  int stages;
  int shared_bytes = 0;
};

constexpr int kMostStages = 4, kFewestStages = 2;

struct Grid {
  int64_t x;
  int y = 1;
  int z = 1;
};

// The device of this number, which has to be the current one.
Device device_at(void* stream, int number);

// Of the current device.
int count_multiprocessors();

// Sets bytes on the device to zero.
void clear_bytes(const Device& device, void* at, int64_t bytes);

}  // namespace tcm::cuda
