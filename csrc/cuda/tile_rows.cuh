// The rows and columns of a tile on their way into shared memory: 64 bytes of each at a time, into one of two
// or four buffers, by asynchronous copies where their alignment allows.
#pragma once

#include "rows.cuh"
#include "tile_memory.h"

namespace tcm::cuda {

constexpr int kTileThreads = 128;
constexpr int kRowChunks = kStepBytes / kChunk;

// Byte of chunk `chunk` of row `row` of a side within a stage.
TCM_DEVICE int swizzled(int row, int chunk) {
  const int line = row / 2;
  return line * 128 + ((row % 2) * kRowChunks + (chunk ^ (line % kRowChunks))) * kChunk;
}

// The rows of a side that products are made of: codes, which lie in label order, or embeddings, which are
// found through it. Row numbers of the tile that is being copied then stand in shared memory, of two tiles by
// turns.
struct CodeRows {
  static constexpr int kElement = 1;
  const Side& side;
  const Shape& shape;

  TCM_DEVICE CodeRows(const Side& of, const Shape& in) : side(of), shape(in) {}
  TCM_DEVICE const char* data() const { return reinterpret_cast<const char*>(side.code); }
  TCM_DEVICE int bytes() const { return shape.code_dim; }
  TCM_DEVICE int granule() const { return kChunk; }
  TCM_DEVICE void begin_tile(int, int, int) const {}
  TCM_DEVICE int row(int, int first, int r) const { return first + r < side.n ? first + r : -1; }
};

template <class T>
struct EmbeddingRows {
  static constexpr int kElement = static_cast<int>(sizeof(T));
  const Side& side;
  const Shape& shape;
  SharedArray<int> rows;  // (2, kTile)

  TCM_DEVICE EmbeddingRows(const Side& of, const Shape& in, int offset)
      : side(of), shape(in), rows(shared_memory<int>(offset)) {}
  TCM_DEVICE const char* data() const { return static_cast<const char*>(side.x); }
  TCM_DEVICE int bytes() const { return shape.dim * kElement; }
  TCM_DEVICE int granule() const { return shape.granule; }
  // To be followed by a barrier.
  TCM_DEVICE void begin_tile(int turn, int first, int r) const {
    rows[turn * kTile + r] = first + r < side.n ? static_cast<int>(side.order[first + r]) : -1;
  }
  TCM_DEVICE int row(int turn, int, int r) const { return rows[turn * kTile + r]; }
};
constexpr int kRowNumberBytes = 2 * kTile * static_cast<int>(sizeof(int));

template <int kElement>
TCM_DEVICE uint32_t load_element(const char* from) {
  if constexpr (kElement == 4) return *reinterpret_cast<const uint32_t*>(from);
  if constexpr (kElement == 2) return *reinterpret_cast<const uint16_t*>(from);
  return *reinterpret_cast<const uint8_t*>(from);
}

// copy_async for rows that begin anywhere: element by element, `bytes` of them at most.
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

// Copies a step of the rows of a tile: each thread one chunk of four of them.
template <class Rows>
TCM_DEVICE void copy_rows(const Rows& rows, int turn, int first, int step, SharedArray<char> shared, int to) {
  constexpr int kApart = kTileThreads / kRowChunks;
  const int chunk = thread_index() % kRowChunks, first_row = thread_index() / kRowChunks;
  const int at = step * kStepBytes + chunk * kChunk, left = rows.bytes() - at;
  to += swizzled(first_row, chunk);  // rows that are kApart apart are exchanged alike
#pragma unroll
  for (int i = 0; i < kTile / kApart; ++i) {
    const int row = rows.row(turn, first, first_row + i * kApart), target = to + i * kApart * kStepBytes;
    const int bytes = row >= 0 && left > 0 ? left : 0;
    const char* from = rows.data() + (bytes > 0 ? int64_t{row} * rows.bytes() + at : 0);
    if (rows.granule() == kChunk) {
      copy_async<kChunk>(shared, target, from, bytes > 0);
    } else if (rows.granule() == 4) {
#pragma unroll
      for (int b = 0; b < kChunk; b += 4)
        copy_async<4>(shared, target + b, b < bytes ? from + b : from, b < bytes);
    } else {
      copy_elements<Rows::kElement>(shared, target, from, bytes);
    }
  }
}

}  // namespace tcm::cuda
