// What a launch needs besides the kernel; plain C++, for the host code that no CUDA compiler sees.
#pragma once

#include <cstdint>

namespace tcm::cuda {

// Where kernels run: torch's stream, and how many multiprocessors its device has.
struct Device {
  void* stream;
  int multiprocessors;
};

struct Grid {
  int64_t x;
  int y = 1;
  int z = 1;
};

// Of the current device.
int count_multiprocessors();

}  // namespace tcm::cuda
