// Accumulate, many hard pairs: P and Q of a block of rows as products of 0/1 patterns with unit rows.
//
// P_i and Q_i are the sums of the unit rows of row i's hard positives and hard negatives. A tile with many of
// one sign is a product of its pattern with the rows of its columns. In memory a pattern is only bits: each
// thread makes the fragment that it feeds to the matrix units. A tile in which all but a few pairs are hard
// negatives adds one block sum instead, to every row for which takes_whole holds; lists.cuh subtracts the
// pairs that are not. Work at half density: 2 N² D flops, 1 U for bfloat16; floor with every pair hard:
// N² / kTile · D additions. Not yet measured.
//
// A pattern is exact in any type, but memory holds the rows as they came, not unit rows. For bfloat16 the
// pattern carries 1/norm in place of 1 (rounded to bfloat16; the loss is not computed from these sums).
// Float16 rows are scaled first, because 1/norm may not fit float16. Float32 rows are scaled and split into
// bfloat16 parts: three for "highest", which is all of their 24 bits, and two otherwise. Matrix units
// truncate their sums, so of these parts they only add up 32 rows at a time; these sums are added in float32.
#pragma once

#include "kernels.h"
#include "pattern_rows.cuh"
#include "screen_state.cuh"

namespace tcm::cuda {

// One word of a tile's pattern.
struct PatternPlace {
  int tile;
  int word;
};

template <class Way>
class Patterns {
 public:
  using Part = typename Way::Part;

  TCM_DEVICE Patterns(const Side& own, const Side& other, const Shape& shape, const Direction& direction,
                      int list_most)
      : own_(own),
        other_(other),
        shape_(shape),
        direction_(direction),
        list_most_(list_most),
        first_d_(block_index_y() * Way::kWidth),
        positive_(block_index_z() == 0),
        rows_(other, shape, block_index_y() * Way::kWidth) {
    const int first = (direction.own_tile + block_index()) * kTile;
    rows_there_ = min(own.n - first, kTile);
    own_bits_ = direction.bits + (int64_t{block_index()} * kTile + row(0)) * direction.words();
    begin_tile_ = 0;
    end_tile_ = direction.other_tiles;
    const int other0 = direction.other_tile * kTile;
    band_begin_ = own.same_begin[first] - other0;
    band_end_ = own.same_end[first + rows_there_ - 1] - other0;
    if (positive_) {  // the tiles that hold the block's classes
      begin_tile_ = min(max(band_begin_, 0) / kTile, end_tile_);
      end_tile_ = min(static_cast<int>(tiles_of(max(band_end_, 0))), end_tile_);
    }
  }

  // Adds to P or Q of the block's rows.
  TCM_DEVICE void run(const float* block_sums) {
    for (int tile = find(kWhole, begin_tile_); tile < end_tile_; tile = find(kWhole, tile + 1)) {
      add_whole(tile, block_sums);
    }
    add_patterns();
    if (touched_) store();
  }

 private:
  enum Kind { kNothing, kWhole, kPattern };
  static constexpr int kRows = 4;  // per thread: two of each of two fragments of 16 rows
  static constexpr int kColumns = Way::kWidth / 8;

  TCM_DEVICE static int row(int r) { return warp_index() * 32 + r * 8 + lane_index() / 4; }

  TCM_DEVICE Kind kind(int tile) const {
    const uint32_t entry = direction_.entry(block_index(), tile);
    const int count = positive_ ? hard_positives(entry) : hard_negatives(entry);
    if (!is_decided(entry) || count <= list_most_) return kNothing;
    const bool whole =
        is_whole_less_a_list(hard_negatives(entry), rows_there_ * columns_there(tile), list_most_);
    return whole && !positive_ ? kWhole : kPattern;
  }
  TCM_DEVICE int columns_there(int tile) const {
    return min(other_.n - (direction_.other_tile + tile) * kTile, kTile);
  }
  // The first tile of a kind from `tile` on, or end_tile_. A warp looks at 32 entries at once.
  TCM_DEVICE int find(Kind wanted, int tile) const {
    for (; tile < end_tile_; tile += kWarp) {
      const int looked_at = tile + lane_index();
      const uint32_t found = ballot(looked_at < end_tile_ && kind(looked_at) == wanted);
      if (found != 0) return tile + lowest_bit(found);
    }
    return end_tile_;
  }

  // The words of the thread's row r in a tile.
  TCM_DEVICE const uint32_t* words_of(int r, int tile) const {
    return own_bits_ + (r * 8 * direction_.words() + tile * kTileWords);
  }

  TCM_DEVICE void add_whole(int tile, const float* block_sums) {
    touched_ = true;
    bool takes[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Chunk words = *reinterpret_cast<const Chunk*>(words_of(r, tile));
      int hard = 0;
#pragma unroll
      for (int w = 0; w < kTileWords; ++w) hard += count_bits(words.word[w]);
      takes[r] = takes_whole(hard, columns_there(tile));
    }
    const float* sums = block_sums + int64_t{tile} * shape_.dim + first_d_;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int d = column(j, odd);
        const float sum = first_d_ + d < shape_.dim ? sums[d] : 0.0f;
#pragma unroll
        for (int r = 0; r < kRows; ++r) sum_[r / 2][j][r % 2 * 2 + odd] += takes[r] ? sum : 0.0f;
      }
    }
  }
  TCM_DEVICE static int column(int j, int odd) { return j * 8 + lane_index() % 4 * 2 + odd; }

  TCM_DEVICE PatternPlace after(PatternPlace at) const {
    return at.word + 1 < kTileWords ? PatternPlace{at.tile, at.word + 1}
                                    : PatternPlace{find(kPattern, at.tile + 1), 0};
  }

  // Adds word after word. While one is multiplied, the rows and bits of the next and the row numbers of the
  // one after it are in flight from global memory.
  TCM_DEVICE void add_patterns() {
    PatternPlace at{find(kPattern, begin_tile_), 0};
    if (at.tile >= end_tile_) return;
    touched_ = true;
    rows_.find(first_of(at));
    rows_.load(first_of(at));
    load_words(at);
    PatternPlace next = after(at);
    rows_.find(first_of(next));
    int buffer = 0;
    float in_parts[2][kColumns][4] = {};
    while (at.tile < end_tile_) {
      rows_.store(buffer);
      uint32_t words[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[r] = words_[r];
      sync_block();  // the rows are there, and the other buffer is free
      const PatternPlace second = next.tile < end_tile_ ? after(next) : next;
      rows_.load(first_of(next));
      load_words(next);
      rows_.find(first_of(second));
      if constexpr (Way::kParts > 1) {
        multiply(at, words, buffer, in_parts);
        add_up(in_parts);
      } else {
        multiply(at, words, buffer, sum_);
      }
      buffer ^= 1;
      at = next;
      next = second;
    }
  }

  TCM_DEVICE void add_up(float (&acc)[2][kColumns][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sum_[i][j][e] += acc[i][j][e];
          acc[i][j][e] = 0.0f;
        }
      }
    }
  }

  // The position of the first row of a place, or kNone.
  TCM_DEVICE int first_of(PatternPlace at) const {
    return at.tile < end_tile_ ? (direction_.other_tile + at.tile) * kTile + at.word * kWordBits : kNone;
  }

  TCM_DEVICE void load_words(PatternPlace at) {
    if (at.tile >= end_tile_) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) words_[r] = words_of(r, at.tile)[at.word];
  }

  // Adds 32 rows. A thread holds the words of its kRows rows and makes the pattern's fragments from them.
  TCM_DEVICE void multiply(PatternPlace at, uint32_t (&words)[kRows], int buffer,
                           float (&acc)[2][kColumns][4]) {
    const int from = at.tile * kTile + at.word * kWordBits, lane = lane_index();
    if (positive_ || (from < band_end_ && from + kWordBits > band_begin_)) {
      const int first = (direction_.own_tile + block_index()) * kTile;
      const int column0 = direction_.other_tile * kTile + from;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {  // class ranges are read again: rarely, and it saves registers
        const int position = min(first + row(r), own_.n - 1);
        const uint32_t same =
            bits_between(own_.same_begin[position] - column0, own_.same_end[position] - column0);
        words[r] &= positive_ ? same : ~same;
      }
    }
    uint32_t a[kPatternRows / 16][2][4];
#pragma unroll
    for (int k = 0; k < kPatternRows; k += 8) {
      const uint32_t one = rows_.ones(buffer, k + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        // The bits of columns k + 2 (lane % 4) and the next are moved to the sign of byte k / 8.
        const uint32_t own = words[r] >> (lane % 4 * 2);
        a[k / 16][r / 2][k / 8 % 2 * 2 + r % 2] = halves_by_sign(own << 7, own << 6, k / 8) & one;
      }
    }
    // The last parts first: they are small, and so is what truncation takes from their sum.
#pragma unroll
    for (int p = Way::kParts - 1; p >= 0; --p) {
#pragma unroll
      for (int k = 0; k < kPatternRows / 16; ++k) {
#pragma unroll
        for (int j = 0; j < kColumns; j += 2) {
          uint32_t b[4];
          rows_.load_fragments(b, buffer, p, k * 16, j);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            multiply_add(Part(), acc[i][j], a[k][i], b);
            multiply_add(Part(), acc[i][j + 1], a[k][i], b + 2);
          }
        }
      }
    }
  }

  TCM_DEVICE void store() const {
    struct alignas(8) Pair {
      float x, y;
    };
    float* to = positive_ ? own_.sums.positive : own_.sums.negative;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row(r) >= rows_there_) continue;
      const int position = (direction_.own_tile + block_index()) * kTile + row(r);
      float* to_row = to + own_.order[position] * shape_.dim + first_d_;
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float* sum = &sum_[r / 2][j][r % 2 * 2];
        const int d = column(j, 0), left = shape_.dim - first_d_ - d;
        if (shape_.dim % 2 == 0) {
          auto* pair = reinterpret_cast<Pair*>(to_row + d);
          if (left > 0) *pair = {pair->x + sum[0], pair->y + sum[1]};
        } else {
          if (left > 0) to_row[d] += sum[0];
          if (left > 1) to_row[d + 1] += sum[1];
        }
      }
    }
  }

  const Side& own_;
  const Side& other_;
  const Shape& shape_;
  const Direction& direction_;
  int list_most_;
  int first_d_;
  bool positive_;
  PatternRows<Way> rows_;
  int rows_there_, begin_tile_, end_tile_;
  int band_begin_, band_end_;  // the columns that hold the block's classes
  const uint32_t* own_bits_;   // of the thread's first row
  bool touched_ = false;
  float sum_[2][kColumns][4] = {};
  uint32_t words_[kRows];
};

// P (z = 0) or Q (z = 1) of one tile of rows (x) and Way::kWidth columns of the embeddings (y), over the
// other side of a super-tile.
template <class Way>
TCM_KERNEL(kPatternThreads, 2)
patterns_kernel(TCM_PARAMETER(Side) own, TCM_PARAMETER(Side) other, TCM_PARAMETER(Shape) shape,
                TCM_PARAMETER(Direction) direction, TCM_PARAMETER(ScreenState) state,
                const float* block_sums) {
  if (is_sparse(state)) return;
  Patterns<Way>(own, other, shape, direction, state.list_most).run(block_sums);
}

}  // namespace tcm::cuda
