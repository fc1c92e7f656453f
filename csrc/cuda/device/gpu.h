// device.h on a GPU.
#pragma once

#include <cuda_runtime.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "launch.h"

#define TCM_DEVICE __device__ __forceinline__
#define TCM_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define TCM_PARAMETER(Type) const __grid_constant__ Type  // can be referenced without a copy

namespace tcm::cuda {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

TCM_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
TCM_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
TCM_DEVICE int block_index_y() { return static_cast<int>(blockIdx.y); }
TCM_DEVICE int block_index_z() { return static_cast<int>(blockIdx.z); }
TCM_DEVICE int block_count() { return static_cast<int>(gridDim.x); }

TCM_DEVICE void sync_block() { __syncthreads(); }
TCM_DEVICE bool sync_block_or(bool value) { return __syncthreads_or(value) != 0; }
TCM_DEVICE void sync_warp() { __syncwarp(); }

template <class T>
TCM_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
TCM_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
TCM_DEVICE uint32_t ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

TCM_DEVICE int count_bits(uint32_t word) { return __popc(word); }
TCM_DEVICE int lowest_bit(uint32_t word) { return __ffs(static_cast<int>(word)) - 1; }
// The lower half is all ones where byte `byte` of `low` is negative, else zero; the upper half likewise, by
// `high`.
TCM_DEVICE uint32_t halves_by_sign(uint32_t low, uint32_t high, int byte) {
  uint32_t halves;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(halves) : "r"(low), "r"(high), "r"(0xCC88u + 0x1111u * byte));
  return halves;
}

TCM_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
TCM_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

template <class T>
struct SharedArray {
  T* data;
  TCM_DEVICE T& operator[](int i) const { return data[i]; }
  TCM_DEVICE uint32_t address(int i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(data + i));
  }
};

// The block's shared memory from byte `offset`, a multiple of 16, on.
template <class T>
TCM_DEVICE SharedArray<T> shared_memory(int offset) {
  extern __shared__ __align__(128) char memory[];
  return {reinterpret_cast<T*>(memory + offset)};
}

// Atomic additions.
TCM_DEVICE void add_shared(SharedArray<uint32_t> shared, int i, uint32_t value) {
  atomicAdd(shared.data + i, value);
}
TCM_DEVICE void add_global(int64_t* at, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}

// Copies kBytes, 16 or 4, from `from` to shared memory, or writes zeros where not `there`. Both addresses are
// multiples of kBytes.
template <int kBytes>
TCM_DEVICE void copy_async(SharedArray<char> shared, int to, const void* from, bool there) {
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared.address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared.address(to)), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
  }
}
// The same unconditionally; 16 bytes only.
template <int kBytes>
TCM_DEVICE void copy_async(SharedArray<char> shared, int to, const void* from) {
  static_assert(kBytes == 16);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared.address(to)), "l"(from) : "memory");
}
TCM_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread are in flight.
template <int N>
TCM_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements; lane l passes the byte at which row l % 8 of matrix l / 8 begins.
TCM_DEVICE void load_matrices(uint32_t (&out)[4], SharedArray<char> shared, int row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared.address(row))
               : "memory");
}
TCM_DEVICE void load_matrices_transposed(uint32_t (&out)[4], SharedArray<char> shared, int row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared.address(row))
               : "memory");
}

// acc (16, 8) += a (16, K) b (8, K)ᵀ, where K elements are 32 bytes: 32 int8, 16 bfloat16 or float16, 8 TF32.
struct Int8 {};
struct Tf32 {};

#define TCM_MULTIPLY_ADD(Type, Acc, kind, instruction)                                          \
  TCM_DEVICE void multiply_add(Type, Acc(&acc)[4], const uint32_t (&a)[4], const uint32_t* b) { \
    asm volatile("mma.sync.aligned." instruction                                                \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"             \
                 : "+" kind(acc[0]), "+" kind(acc[1]), "+" kind(acc[2]), "+" kind(acc[3])       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));           \
  }
TCM_MULTIPLY_ADD(Int8, int32_t, "r", "m16n8k32.row.col.s32.s8.s8.s32")
TCM_MULTIPLY_ADD(BFloat16, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
TCM_MULTIPLY_ADD(Half, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
TCM_MULTIPLY_ADD(Tf32, float, "f", "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef TCM_MULTIPLY_ADD

// The nearest TF32 number, as a float32's bits.
TCM_DEVICE uint32_t round_to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // clears the error, so that the next call does not see it
    throw std::runtime_error(std::string("tcm_kernels: CUDA kernel ") + what + ": " +
                             cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
  }
}

// Launches a kernel, unless the grid is empty; throws with its name if that fails.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Device& device, Grid grid, int threads,
            int shared_bytes, const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          name);
  }
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  kernel<<<blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
           static_cast<cudaStream_t>(device.stream)>>>(arguments...);
  check(cudaGetLastError(), name);
}

struct CurrentDevice {
  int number;
  int multiprocessors;
  int shared_bytes;  // of a multiprocessor
};
inline CurrentDevice current_device() {
  constexpr const char* what = "preparation";
  CurrentDevice device{};
  check(cudaGetDevice(&device.number), what);
  check(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, device.number), what);
  check(cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                               device.number),
        what);
  return device;
}

// Sets bytes to zero.
inline void clear(const Device& device, void* at, int64_t bytes) {
  if (bytes > 0)
    check(cudaMemsetAsync(at, 0, static_cast<size_t>(bytes), static_cast<cudaStream_t>(device.stream)),
          "clear");
}

}  // namespace tcm::cuda
