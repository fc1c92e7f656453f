// The machine as kernels see it, with one interface and two implementations: instructions of a GPU, sm_80 and
// up (gpu.h), and an emulator on the CPU, on which the tests run the kernels' own source.
//
//   thread_index, block_index, ...     the thread's and the block's number
//   sync_warp, sync_block, ...         barriers; all threads of a warp or a block must call the same ones
//   shuffle, shuffle_xor, ballot       exchange between the 32 lanes of a warp; all lanes must call
//   SharedArray<T>                     a typed view of shared memory, of elements of 4 bytes or more; of char
//                                      only for copy_async and load_matrices
//   add_shared, add_global             atomic additions of integers
//   copy_async, commit_copies, ...     asynchronous copies of 16 or 4 bytes from global to shared memory
//   load_matrices[_transposed]         fragments of matrix products from shared memory
//   multiply_add                       a product on matrix units: 16 rows, 8 columns, 32 bytes of each
//   launch, clear                      on the host
//
// Global memory is read and written through ordinary pointers.
#pragma once

#ifdef __CUDACC__
#include "gpu.h"
#else
#include "emulator/device.h"
#endif

namespace tcm::cuda {

constexpr int kWarp = 32;
constexpr int kChunk = 16;  // bytes of a vector load or copy

TCM_DEVICE int lane_index() { return thread_index() % kWarp; }
TCM_DEVICE int warp_index() { return thread_index() / kWarp; }

// Sum over the lanes of a warp, bitwise the same in all of them.
template <class T>
TCM_DEVICE T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += shuffle_xor(value, step);
  return value;
}

template <class T>
TCM_DEVICE T warp_max(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = shuffle_xor(value, step);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over the threads of a block, in a fixed order, returned to all of them. `partial` has one element per
// warp; a barrier has to lie between its previous use and the call.
template <class T>
TCM_DEVICE T block_sum(T value, SharedArray<T> partial, int warps) {
  value = warp_sum(value);
  if (lane_index() == 0) partial[warp_index()] = value;
  sync_block();
  T sum{};
  for (int w = 0; w < warps; ++w) sum += T(partial[w]);
  return sum;
}

}  // namespace tcm::cuda
