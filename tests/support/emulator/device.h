// cuda/device/device.h on a CPU: the kernels' own source runs block after block, each thread as a fiber
// (fibers.h), with shared memory that records which threads touch it (shared_memory.h). For tests: slow and
// strict.
//
// Besides missing barriers it finds what only makes a GPU slow or its results wrong: lanes that take no part
// in an operation of their warp, bank conflicts where matrices are loaded, copies that are read before they
// have ended. It does not find races in global memory, nor between blocks, which run one after the other.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <type_traits>

#include "cuda/device/launch.h"
#include "machine.h"

#define TCM_DEVICE inline
#define TCM_KERNEL(threads, blocks) inline void
#define TCM_PARAMETER(Type) const Type

namespace tcm::cuda {

using emulator::kLanes;
using emulator::machine;
using std::max;
using std::min;
using torch::headeronly::BFloat16;
using torch::headeronly::Half;

inline int thread_index() { return machine().thread(); }
inline int block_index() { return static_cast<int>(machine().block % machine().grid.x); }
inline int block_index_y() { return static_cast<int>(machine().block / machine().grid.x % machine().grid.y); }
inline int block_index_z() { return static_cast<int>(machine().block / machine().grid.x / machine().grid.y); }
inline int block_count() { return static_cast<int>(machine().grid.x); }

inline void sync_block() { machine().sync_block(false, "sync_block"); }
inline bool sync_block_or(bool value) { return machine().sync_block(value, "sync_block_or"); }
inline void sync_warp() {
  machine().together<int>("sync_warp", 0, [](auto& in, auto& out) { std::copy_n(in, kLanes, out); });
  ++machine().own().of_warp;
}

template <class T>
T shuffle(T value, int lane) {
  struct In {
    T value;
    int lane;
  };
  return machine().together<T>("shuffle", In{value, lane}, [](auto& in, auto& out) {
    for (int i = 0; i < kLanes; ++i) out[i] = in[in[i].lane & (kLanes - 1)].value;
  });
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, (thread_index() % kLanes) ^ mask);
}
inline uint32_t ballot(bool value) {
  return machine().together<uint32_t>("ballot", value, [](auto& in, auto& out) {
    uint32_t word = 0;
    for (int i = 0; i < kLanes; ++i) word |= uint32_t{in[i]} << i;
    std::fill_n(out, kLanes, word);
  });
}

inline int count_bits(uint32_t word) { return __builtin_popcount(word); }
inline int lowest_bit(uint32_t word) { return __builtin_ffs(static_cast<int>(word)) - 1; }
inline uint32_t halves_by_sign(uint32_t low, uint32_t high, int byte) {
  const int sign = 8 * byte + 7;
  return (low >> sign & 1u) * 0xFFFFu | (high >> sign & 1u) * 0xFFFF0000u;
}
inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
struct SharedArray {
  T* data;
  emulator::Element<T> operator[](int i) const { return emulator::Element<T>(data + i); }
};

template <class T>
SharedArray<T> shared_memory(int offset) {
  return {reinterpret_cast<T*>(machine().shared.at(offset))};
}

inline void add_shared(SharedArray<uint32_t> shared, int i, uint32_t value) {
  machine().shared.add(shared.data + i, sizeof(uint32_t), machine().now());
  shared.data[i] += value;
}
inline void add_global(int64_t* at, int64_t value) { *at += value; }

template <int kBytes>
void copy_async(SharedArray<char> shared, int to, const void* from, bool there) {
  if (there && reinterpret_cast<uintptr_t>(from) % kBytes != 0)
    throw emulator::Fault("copy_async: not aligned");
  machine().shared.begin_copy(shared.data + to, kBytes, machine().now());
  machine().own().copies.push_back({shared.data + to, there ? from : nullptr, kBytes});
}
template <int kBytes>
void copy_async(SharedArray<char> shared, int to, const void* from) {
  copy_async<kBytes>(shared, to, from, true);
}
inline void commit_copies() {
  auto& own = machine().own();
  own.groups.push_back(std::move(own.copies));
  own.copies.clear();
}
template <int N>
void wait_copies() {
  auto& own = machine().own();
  for (; own.groups.size() > N; own.groups.pop_front()) {
    for (const auto& copy : own.groups.front()) {
      std::memset(copy.to, 0, copy.bytes);
      if (copy.from != nullptr) std::memcpy(copy.to, copy.from, copy.bytes);
      machine().shared.end_copy(copy.to, copy.bytes, machine().now());
    }
  }
}

struct Registers {
  uint32_t word[4];
};

// Element (i, j) of matrix m, or (j, i) where transposed, goes to lane 4 i + j / 2, half j % 2.
inline Registers load_four_matrices(SharedArray<char> shared, int row, bool transposed) {
  machine().shared.read(shared.data + row, 16, machine().now());
  return machine().together<Registers>(
      transposed ? "load_matrices_transposed" : "load_matrices", shared.data + row,
      [=](auto& rows, auto& out) {
        for (int m = 0; m < 4; ++m) {
          uint32_t banks = 0;
          for (int i = 0; i < 8; ++i) {
            banks |= 1u << (reinterpret_cast<uintptr_t>(rows[8 * m + i]) / 16 % 8);
            for (int j = 0; j < 8; ++j) {
              const int lane = transposed ? 4 * j + i / 2 : 4 * i + j / 2;
              const int half = transposed ? i % 2 : j % 2;
              std::memcpy(reinterpret_cast<char*>(&out[lane].word[m]) + 2 * half, rows[8 * m + i] + 2 * j, 2);
            }
          }
          if (banks != 0xFF)
            throw emulator::Fault("load_matrices: the rows of a matrix share banks of shared memory");
        }
      });
}
inline void load_matrices(uint32_t (&out)[4], SharedArray<char> shared, int row) {
  std::copy_n(load_four_matrices(shared, row, false).word, 4, out);
}
inline void load_matrices_transposed(uint32_t (&out)[4], SharedArray<char> shared, int row) {
  std::copy_n(load_four_matrices(shared, row, true).word, 4, out);
}

struct Int8 {};
struct Tf32 {};

// The value of an element to the matrix units, from its bytes.
inline int32_t element_value(Int8, const char* at) { return static_cast<int8_t>(*at); }
inline float element_value(Tf32, const char* at) {
  uint32_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return float_of(bits & ~0x1FFFu);  // the units ignore the other bits
}
template <class T>
float element_value(T, const char* at) {
  T x;
  std::memcpy(&x, at, sizeof x);
  return static_cast<float>(x);
}

template <class Type>
constexpr int element_bytes() {
  return std::is_same_v<Type, Int8> ? 1 : std::is_same_v<Type, Tf32> ? 4 : 2;
}

// Matrix units add up with a few more bits and truncate the result.
inline float cut_off(double sum) {
  const float nearest = static_cast<float>(sum);
  return std::fabs(nearest) > std::fabs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

// Register r of `a` holds 4 bytes of row lane / 4 + 8 (r % 2), from byte 4 (lane % 4) + 16 (r / 2) on;
// register r of `b` 4 bytes of column lane / 4, from byte 4 (lane % 4) + 16 r on; element e of `acc` is in
// row lane / 4 + 8 (e / 2) and column 2 (lane % 4) + e % 2.
template <class Type, class Acc>
void multiply_add(Type type, Acc (&acc)[4], const uint32_t (&a)[4], const uint32_t* b) {
  struct In {
    uint32_t a[4], b[2];
    Acc acc[4];
  } in{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {acc[0], acc[1], acc[2], acc[3]}};
  struct Out {
    Acc acc[4];
  };
  const Out out = machine().together<Out>("multiply_add", in, [=](auto& lanes, auto& results) {
    constexpr int kBytes = element_bytes<Type>(), kTerms = 32 / kBytes;
    Acc rows[16][kTerms], columns[8][kTerms];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int r = 0; r < 4; ++r) {
        for (int e = 0; e < 4 / kBytes; ++e) {
          const int term = (4 * (lane % 4) + 16 * (r / 2)) / kBytes + e;
          rows[lane / 4 + 8 * (r % 2)][term] =
              element_value(type, reinterpret_cast<const char*>(&lanes[lane].a[r]) + e * kBytes);
          if (r < 2) {
            const int column_term = (4 * (lane % 4) + 16 * r) / kBytes + e;
            columns[lane / 4][column_term] =
                element_value(type, reinterpret_cast<const char*>(&lanes[lane].b[r]) + e * kBytes);
          }
        }
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int e = 0; e < 4; ++e) {
        const Acc *row = rows[lane / 4 + 8 * (e / 2)], *column = columns[2 * (lane % 4) + e % 2];
        if constexpr (std::is_same_v<Acc, int32_t>) {
          results[lane].acc[e] = std::inner_product(row, row + kTerms, column, lanes[lane].acc[e]);
        } else {
          results[lane].acc[e] =
              cut_off(std::inner_product(row, row + kTerms, column, double{lanes[lane].acc[e]}, std::plus<>(),
                                         std::multiplies<double>()));
        }
      }
    }
  });
  std::copy_n(out.acc, 4, acc);
}

// To nearest, ties away from zero.
inline uint32_t round_to_tf32(float x) { return (bits_of(x) + 0x1000u) & ~0x1FFFu; }

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Device&, Grid grid, int threads,
            int shared_bytes, const Arguments&... arguments) {
  emulator::launches += grid.x * grid.y * grid.z > 0;
  machine().run(name, grid, threads, shared_bytes, [&] { kernel(arguments...); });
}

// Few multiprocessors, so that a block has several tiles; 228 KiB each, or TCM_EMULATOR_SHARED_BYTES.
struct CurrentDevice {
  int number;
  int multiprocessors;
  int shared_bytes;
};
inline CurrentDevice current_device() {
  const char* asked = std::getenv("TCM_EMULATOR_SHARED_BYTES");
  return {0, 2, asked == nullptr ? 228 * 1024 : std::atoi(asked)};
}

inline void clear(const Device&, void* at, int64_t bytes) {
  ++emulator::launches;
  std::memset(at, 0, bytes);
}

}  // namespace tcm::cuda
