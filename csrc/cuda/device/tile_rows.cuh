// Copies the rows and columns of a tile into shared memory: 64 bytes of each per step, into one of two or
// four buffers, asynchronously where their alignment allows.
#pragma once

#include "rows.cuh"
#include "tile_memory.h"

namespace tcm::cuda {

constexpr int kTileThreads = 128;
constexpr int kRowChunks = kStepBytes / kChunk;

// Byte offset of a row's chunk within its side of a buffer.
TCM_DEVICE int swizzled(int row, int chunk) {
  const int line = row / 2;
  return line * 128 + ((row % 2) * kRowChunks + (chunk ^ (line % kRowChunks))) * kChunk;
}

// In a step a thread copies one chunk of every kApart-th row.
constexpr int kApart = kTileThreads / kRowChunks;
TCM_DEVICE int copied_chunk() { return thread_index() % kRowChunks; }
TCM_DEVICE int copied_row() { return thread_index() / kRowChunks; }
// Byte offset of the first of these chunks. Rows kApart apart are swizzled alike, so the others follow every
// kApart * kStepBytes.
TCM_DEVICE int copied_to() { return swizzled(copied_row(), copied_chunk()); }

// The rows of a side as operands: codes, stored in label order in whole tiles. A thread keeps one source
// address, set once per tile and advanced once per step, so that a copy costs one addition besides.
class CodeRows {
 public:
  TCM_DEVICE CodeRows(const Side& side, const Shape& shape)
      : codes_(reinterpret_cast<const char*>(side.code)), dim_(shape.code_dim) {}
  TCM_DEVICE int bytes() const { return dim_; }
  TCM_DEVICE void begin_tile(int, int first) {
    from_ = codes_ + int64_t{first + copied_row()} * dim_ + copied_chunk() * kChunk;
  }
  TCM_DEVICE void copy_step(int, int, SharedArray<char> shared, int to) {
    to += copied_to();
#pragma unroll
    for (int i = 0; i < kTile / kApart; ++i) {
      copy_async<kChunk>(shared, to + i * kApart * kStepBytes, from_ + i * kApart * dim_);
    }
    from_ += kStepBytes;
  }

 private:
  const char* codes_;
  int dim_;
  const char* from_ = nullptr;
};

template <int kElement>
TCM_DEVICE uint32_t load_element(const char* from) {
  if constexpr (kElement == 4) return *reinterpret_cast<const uint32_t*>(from);
  if constexpr (kElement == 2) return *reinterpret_cast<const uint16_t*>(from);
  return *reinterpret_cast<const uint8_t*>(from);
}

// Like copy_async, for any alignment: the first `bytes` bytes of a chunk, element by element, then zeros.
template <int kElement>
TCM_DEVICE void copy_elements(SharedArray<char> shared, int to, const char* from, int bytes) {
  const SharedArray<uint32_t> words{reinterpret_cast<uint32_t*>(shared.data + to)};
#pragma unroll 1
  for (int w = 0; w < kChunk / 4; ++w) {
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; b += kElement) {
      if (4 * w + b < bytes) word |= load_element<kElement>(from + 4 * w + b) << (8 * b);
    }
    words[w] = word;
  }
}

// Or embeddings, found through the order. The row numbers of the tile being copied are in shared memory, for
// two tiles alternately: the addresses of eight rows would take registers that the products need.
template <class T>
class EmbeddingRows {
 public:
  TCM_DEVICE EmbeddingRows(const Side& side, const Shape& shape, int offset)
      : side_(side), shape_(shape), rows_(shared_memory<int>(offset)) {}
  TCM_DEVICE int bytes() const { return shape_.dim * kElement; }
  // A barrier has to follow. Past the last row, the last one is copied again; its products are ignored.
  TCM_DEVICE void begin_tile(int turn, int first) const {
    const int r = thread_index();
    rows_[turn * kTile + r] = static_cast<int>(side_.order[min(first + r, side_.n - 1)]);
  }
  TCM_DEVICE void copy_step(int turn, int step, SharedArray<char> shared, int to) const {
    const int at = step * kStepBytes + copied_chunk() * kChunk, left = bytes() - at;
    const char* data = static_cast<const char*>(side_.x) + (left > 0 ? at : 0);
    to += copied_to();
    // Calls copy(target, from) for this thread's chunks, of which the first `left` bytes exist.
    const auto for_each_chunk = [&](auto copy) {
#pragma unroll
      for (int i = 0; i < kTile / kApart; ++i) {
        const int row = rows_[turn * kTile + copied_row() + i * kApart];
        copy(to + i * kApart * kStepBytes, data + int64_t{row} * bytes());
      }
    };
    if (shape_.vectors()) {
      for_each_chunk(
          [&](int target, const char* from) { copy_async<kChunk>(shared, target, from, left > 0); });
    } else if (shape_.granule == 4) {
      for_each_chunk([&](int target, const char* from) {
#pragma unroll
        for (int b = 0; b < kChunk; b += 4)
          copy_async<4>(shared, target + b, b < left ? from + b : from, b < left);
      });
    } else {
      for_each_chunk(
          [&](int target, const char* from) { copy_elements<kElement>(shared, target, from, left); });
    }
  }

 private:
  static constexpr int kElement = static_cast<int>(sizeof(T));
  const Side& side_;
  const Shape& shape_;
  SharedArray<int> rows_;  // (2, kTile)
};
constexpr int kRowNumberBytes = 2 * kTile * static_cast<int>(sizeof(int));

}  // namespace tcm::cuda
