// A tile's pairs as words of bits in shared memory, made from the threads' products.
#pragma once

#include "cuda/device/products.cuh"
#include "decisions.h"

namespace tcm::cuda {

// The transpose of 32 x 32 bits, of which each lane holds a row. All lanes must call.
TCM_DEVICE uint32_t transposed_bits(uint32_t word) {
  uint32_t low = 0x0000FFFFu;
#pragma unroll
  for (int step = 16; step > 0; step /= 2, low ^= low << step) {
    const uint32_t other = shuffle_xor(word, step);
    word =
        lane_index() & step ? (word & ~low) | (other >> step & low) : (word & low) | (other << step & ~low);
  }
  return word;
}

class TileBits {
 public:
  static constexpr int kBytes =
      2 * kTile * kTileWords * static_cast<int>(sizeof(uint32_t)) + 4 * kTileThreads / kWarp;

  TCM_DEVICE explicit TileBits(int offset)
      : rows_(shared_memory<uint32_t>(offset)),
        columns_(shared_memory<uint32_t>(offset + kTile * kTileWords * 4)),
        partial_(shared_memory<uint32_t>(offset + 2 * kTile * kTileWords * 4)) {}

  // A thread's pairs are the bits shift() + 8 j + odd of its row's word.
  TCM_DEVICE static int shift() { return lane_index() % 4 * 2; }

  // Sets the bits of the pairs for which `is_set(i, half, j, odd)`, which each thread calls once for each of
  // its products.
  template <class F>
  TCM_DEVICE void set(F is_set) {
    using Places = Products<int>;
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int w = 0; w < kWarpTile / kWordBits; ++w) {
          uint32_t word = 0;
#pragma unroll
          for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
              const bool set = is_set(i, half, 4 * w + j, odd);
              word |= static_cast<uint32_t>(set) << (8 * j + odd);
            }
          }
          word <<= shift();
          // The four lanes that share a row hold eight bits each.
          word |= shuffle_xor(word, 1);
          word |= shuffle_xor(word, 2);
          if (lane_index() % 4 == 0) {
            rows_[Places::row(i, half) * kTileWords + Places::first_column() / kWordBits + w] = word;
          }
        }
      }
    }
    sync_block();
  }

  // The sum of `count(w, word)` over the words of all rows.
  template <class Count>
  TCM_DEVICE uint32_t count_rows(Count count) {
    uint32_t counted = 0;
#pragma unroll
    for (int w = 0; w < kTileWords; ++w) counted += count(w, rows_[thread_index() * kTileWords + w]);
    return block_sum(counted, partial_, kTileThreads / kWarp);
  }

  // Replaces each word of this thread's row by `change(w, word)` and stores the row at `to`, a multiple of 16
  // bytes. Returns the sum of `count(w, word)` over the new words of all rows.
  template <class Change, class Count>
  TCM_DEVICE uint32_t store_rows(uint32_t* to, Change change, Count count) {
    Chunk words;
    uint32_t counted = 0;
#pragma unroll
    for (int w = 0; w < kTileWords; ++w) {
      const uint32_t word = change(w, rows_[thread_index() * kTileWords + w]);
      rows_[thread_index() * kTileWords + w] = word;
      words.word[w] = word;
      counted += count(w, word);
    }
    *reinterpret_cast<Chunk*>(to) = words;
    return block_sum(counted, partial_, kTileThreads / kWarp);
  }

  // Stores the column of this thread at `to`. To be called after store_rows.
  TCM_DEVICE void store_columns(uint32_t* to) {
#pragma unroll
    for (int c = 0; c < kTileWords; ++c) {
      const uint32_t word = transposed_bits(rows_[thread_index() * kTileWords + c]);
      columns_[(c * kWordBits + lane_index()) * kTileWords + warp_index()] = word;
    }
    sync_block();
    Chunk words;
#pragma unroll
    for (int w = 0; w < kTileWords; ++w) words.word[w] = columns_[thread_index() * kTileWords + w];
    *reinterpret_cast<Chunk*>(to) = words;
  }

 private:
  static_assert(kTileThreads == kTile && kTileThreads / kWarp == kTileWords);
  SharedArray<uint32_t> rows_;     // (kTile, kTileWords)
  SharedArray<uint32_t> columns_;  // the same by column
  SharedArray<uint32_t> partial_;
};

// Where a tile's bits and its entry go.
class TileOutput {
 public:
  TCM_DEVICE TileOutput(const Decisions& to, const SuperTile& part) : to_(to), part_(part) {}

  TCM_DEVICE uint32_t* row(TilePlace at) const {
    const int64_t row = int64_t{at.row} * kTile + thread_index();
    return to_.row_bits + row * part_.columns * kTileWords + at.column * kTileWords;
  }
  TCM_DEVICE uint32_t* column(TilePlace at) const {
    const int64_t column = int64_t{at.column} * kTile + thread_index();
    return to_.column_bits + column * part_.rows * kTileWords + at.row * kTileWords;
  }
  // A tile on the diagonal of the matrix is its own transpose.
  TCM_DEVICE bool has_columns(TilePlace at) const {
    return to_.column_bits != nullptr && !(part_.diagonal && at.row == at.column);
  }
  TCM_DEVICE uint32_t entry(TilePlace at) const { return to_.directory[number(at.row, at.column)]; }
  TCM_DEVICE void set_entry(TilePlace at, uint32_t entry) const {
    if (thread_index() != 0) return;
    to_.directory[number(at.row, at.column)] = entry;
    if (part_.diagonal) to_.directory[number(at.column, at.row)] = entry;
  }

 private:
  TCM_DEVICE int64_t number(int row, int column) const { return int64_t{row} * part_.columns + column; }
  const Decisions& to_;
  const SuperTile& part_;
};

}  // namespace tcm::cuda
