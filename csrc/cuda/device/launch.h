// What a launch needs besides the kernel; plain C++, for host code that nvcc does not compile.
#pragma once

#include <cstdint>

namespace tcm::cuda {

// Where kernels run: torch's stream, the number of multiprocessors, the copy buffers of a block that
// multiplies tiles (two such blocks fit into a multiprocessor), and the shared memory of a multiprocessor.
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

// The device of this number, which must be the current one; throws otherwise.
Device device_at(void* stream, int number);

// Of the current device.
int count_multiprocessors();

// Sets bytes on the device to zero.
void clear_bytes(const Device& device, void* at, int64_t bytes);

}  // namespace tcm::cuda
