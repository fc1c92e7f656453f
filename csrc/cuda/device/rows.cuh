// Reads and writes rows of any dtype and alignment as float32 numbers; the norm of a row.
#pragma once

#include "device.h"
#include "side.h"

namespace tcm::cuda {

// Calls `f` with a value of the dtype's type.
template <class F>
void with_dtype(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float32: return f(float());
    case Dtype::float16: return f(Half());
    case Dtype::bfloat16: return f(BFloat16());
  }
}

// 16 bytes as they are in memory.
struct alignas(kChunk) Chunk {
  uint32_t word[4];
};

template <class T>
constexpr int kPerChunk = kChunk / static_cast<int>(sizeof(T));

TCM_DEVICE float element(const Chunk& chunk, int i, float) { return float_of(chunk.word[i]); }
// bfloat16 is the upper half of a float32.
TCM_DEVICE float element(const Chunk& chunk, int i, BFloat16) {
  const uint32_t pair = chunk.word[i / 2];
  return float_of(i % 2 ? pair & 0xFFFF0000u : pair << 16);
}
TCM_DEVICE float element(const Chunk& chunk, int i, Half) {
  Half half(static_cast<unsigned short>(chunk.word[i / 2] >> (i % 2 * 16)), Half::from_bits());
  return static_cast<float>(half);
}

TCM_DEVICE uint32_t raw_bits(float x) { return bits_of(x); }
TCM_DEVICE uint32_t raw_bits(BFloat16 x) { return x.x; }
TCM_DEVICE uint32_t raw_bits(Half x) { return x.x; }

// Elements [d, d + kPerChunk) of a row, zeros past its end. d is a multiple of kPerChunk.
template <class T>
TCM_DEVICE Chunk load_chunk(const T* row, int d, const Shape& shape) {
  if (shape.vectors()) {
    return d < shape.dim ? *reinterpret_cast<const Chunk*>(row + d) : Chunk{};
  }
  Chunk chunk{};
  constexpr int kBits = 8 * static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) {
    const uint32_t bits = d + i < shape.dim ? raw_bits(row[d + i]) : 0;
    chunk.word[i * kBits / 32] |= bits << (i * kBits % 32);
  }
  return chunk;
}

// Elements [d, d + kCount) of a float32 row of P or Q, zeros past its end. d is a multiple of kCount. Where
// rows of the embeddings begin at multiples of 16 bytes, so do those of P and Q.
template <int kCount>
TCM_DEVICE void load_floats(float (&out)[kCount], const float* row, int d, const Shape& shape) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if (shape.vectors()) {
      const Chunk chunk = d < shape.dim ? *reinterpret_cast<const Chunk*>(row + d + i) : Chunk{};
#pragma unroll
      for (int e = 0; e < 4; ++e) out[i + e] = float_of(chunk.word[e]);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[i + e] = d + i + e < shape.dim ? row[d + i + e] : 0.0f;
    }
  }
}

// Stores `values` as the elements [d, d + kCount), except past the end of the row.
template <int kCount>
TCM_DEVICE void store_floats(const float (&values)[kCount], float* row, int d, const Shape& shape) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if (shape.vectors()) {
      Chunk chunk;
#pragma unroll
      for (int e = 0; e < 4; ++e) chunk.word[e] = bits_of(values[i + e]);
      if (d < shape.dim) *reinterpret_cast<Chunk*>(row + d + i) = chunk;
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (d + i + e < shape.dim) row[d + i + e] = values[i + e];
      }
    }
  }
}

// Stores `values`, rounded to T, as the elements [d, d + kPerChunk), except past the end of the row.
template <class T>
TCM_DEVICE void store_elements(const float (&values)[kPerChunk<T>], T* row, int d, const Shape& shape) {
  if (shape.vectors()) {
    Chunk chunk{};
    constexpr int kBits = 8 * static_cast<int>(sizeof(T));
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i)
      chunk.word[i * kBits / 32] |= raw_bits(T(values[i])) << (i * kBits % 32);
    if (d < shape.dim) *reinterpret_cast<Chunk*>(row + d) = chunk;
  } else {
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      if (d + i < shape.dim) row[d + i] = T(values[i]);
    }
  }
}

template <class T>
TCM_DEVICE const T* row_of(const Side& side, int position, const Shape& shape) {
  return static_cast<const T*>(side.x) + side.order[position] * shape.dim;
}

constexpr double kNormFloor = 1e-12;                       // as torch.nn.functional.normalize
constexpr double kLargestFloat32 = 3.4028235677973366e38;  // from here on a float64 rounds to infinity

// Of a row whose squares sum up to `square`: norm, 1 / max(norm, floor), whether float32 can hold the norm.
struct Norm {
  double norm;
  double inverse;
  bool finite;
};
TCM_DEVICE Norm norm_of(double square) {
  const double norm = sqrt(square);
  const bool finite = norm < kLargestFloat32;
  // 1 where the norm is not finite, so that nothing is computed from infinity.
  const double length = finite ? norm : 1.0;
  return {norm, 1.0 / (length > kNormFloor ? length : kNormFloor), finite};
}

}  // namespace tcm::cuda
