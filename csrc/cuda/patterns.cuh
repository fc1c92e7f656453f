// Add up, many hard pairs: P and Q of a block of rows as products of 0/1 patterns with unit rows.
//
// P_i and Q_i are the sums of the unit rows of row i's hard positives and hard negatives. A tile with many of
// one sign is a product of its pattern with the rows of its columns. The pattern never lies in memory but as
// bits: a thread makes the fragment of it that it feeds to the matrix units. A tile of which all but a few
// pairs are hard adds one block sum to every row instead, and lists.cuh takes away what is too much. Work at
// half density: 2 N² D flops, 1 U for bfloat16; floor with every pair hard: N² / kTile · D additions. Not yet
// measured.
//
// A pattern is exact in any type, but the unit row is not the operand that lies in memory. For bfloat16 the
// pattern carries 1/norm in place of the 1 (rounded to bfloat16; the loss is not read off these sums).
// Float16 rows are scaled before, because 1/norm may not be a float16. Float32 rows are scaled and split into
// bfloat16 parts: three for "highest", which is all of their 24 bits, and two otherwise; matrix units cut
// their sums off instead of rounding them, so of these they only add up 32 rows, and the rest is added as
// float32.
#pragma once

#include "found.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace tcm::cuda {

// How rows of T are multiplied with a pattern: type and number of the parts, columns of the embeddings that a
// block adds up, and whether the pattern carries 1/norm.
struct BFloat16Weights {
  using Row = BFloat16;
  using Part = BFloat16;
  static constexpr int kParts = 1;
  static constexpr int kWidth = 128;
  static constexpr bool kWeights = true;
};
struct HalfScaled {
  using Row = Half;
  using Part = Half;
  static constexpr int kParts = 1;
  static constexpr int kWidth = 128;
  static constexpr bool kWeights = false;
};
template <int kCount>
struct Float32Parts {
  using Row = float;
  using Part = BFloat16;
  static constexpr int kParts = kCount;
  static constexpr int kWidth = 64;
  static constexpr bool kWeights = false;
};

constexpr int kPatternRows = 32;  // of the other side, at a time: a word of the pattern
constexpr int kPatternThreads = 128;
constexpr int kFactorBytes = kPatternRows * static_cast<int>(sizeof(float));
template <class Way>
constexpr int kPartBytes = kPatternRows * Way::kWidth * 2;
template <class Way>
constexpr int kPatternBufferBytes = Way::kParts * kPartBytes<Way> + kFactorBytes;
template <class Way>
constexpr int kPatternBytes = 2 * kPatternBufferBytes<Way>;

template <class T>
TCM_DEVICE float sum_of_column(const Side& side, int first, int last, int d, const Shape& shape) {
  float sum = 0.0f;
  for (int position = first; position < last; ++position) {
    sum += static_cast<float>(row_of<T>(side, position, shape)[d]) * side.inverse[position];
  }
  return sum;
}

// The sum of the unit rows of each tile of one side of a super-tile, (tiles, dim): a block a tile (x) and
// kBlockSumThreads columns (y).
constexpr int kBlockSumThreads = 256;
template <class T>
TCM_KERNEL(kBlockSumThreads, 4)
block_sums_kernel(TCM_PARAMETER(Side) side, TCM_PARAMETER(Shape) shape, int first_tile,
                  TCM_PARAMETER(Found) found, float* sums) {
  if (is_sparse(found)) return;
  const int d = block_index_y() * kBlockSumThreads + thread_index();
  if (d >= shape.dim) return;
  const int first = (first_tile + block_index()) * kTile;
  sums[int64_t{block_index()} * shape.dim + d] =
      sum_of_column<T>(side, first, min(first + kTile, side.n), d, shape);
}

// One word of a tile's pattern.
struct PatternPlace {
  int tile;
  int word;
};

template <class Way>
class Patterns {
 public:
  using Row = typename Way::Row;
  using Part = typename Way::Part;

  TCM_DEVICE Patterns(const Side& own, const Side& other, const Shape& shape, const Direction& direction,
                      int list_most)
      : own_(own),
        other_(other),
        shape_(shape),
        direction_(direction),
        list_most_(list_most),
        first_d_(block_index_y() * Way::kWidth),
        positive_(block_index_z() == 0) {
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
      end_tile_ = min((max(band_end_, 0) + kTile - 1) / kTile, end_tile_);
    }
  }

  // P or Q of the block's rows, added to what is there.
  TCM_DEVICE void run(const float* block_sums) {
    for (int tile = find(kWhole, begin_tile_); tile < end_tile_; tile = find(kWhole, tile + 1)) {
      add_whole(tile, block_sums);
    }
    add_patterns();
    if (touched_) store();
  }

 private:
  enum Kind { kNothing, kWhole, kPattern };
  static constexpr int kRows = 4;  // of a thread: two fragments of 16 rows, of each two
  static constexpr int kColumns = Way::kWidth / 8;
  static constexpr int kLoads = kPatternRows * Way::kWidth / 8 / kPatternThreads;  // of eight elements
  static constexpr int kChunks = 8 / kPerChunk<Row>;

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
  // The first tile of a kind from `tile` on; a warp looks at 32 entries at once.
  TCM_DEVICE int find(Kind wanted, int tile) const {
    for (; tile < end_tile_; tile += kWarp) {
      const int looked_at = tile + lane_index();
      const uint32_t found = ballot(looked_at < end_tile_ && kind(looked_at) == wanted);
      if (found != 0) return tile + lowest_bit(found);
    }
    return end_tile_;
  }

  // The words of a row that belong to a tile.
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

  // Word after word. While one is multiplied, rows and bits of the next are on their way from global memory,
  // and for the one after that the numbers of its rows.
  TCM_DEVICE void add_patterns() {
    PatternPlace at{find(kPattern, begin_tile_), 0};
    if (at.tile >= end_tile_) return;
    touched_ = true;
    load_row_numbers(at);
    load(at);
    PatternPlace next = after(at);
    load_row_numbers(next);
    int buffer = 0;
    float in_parts[2][kColumns][4] = {};
    while (at.tile < end_tile_) {
      store_rows(buffer);
      uint32_t words[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) words[r] = words_[r];
      sync_block();  // the rows are there, and the other buffer is free
      const PatternPlace second = next.tile < end_tile_ ? after(next) : next;
      load(next);
      load_row_numbers(second);
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

  // As many threads have a row as it has chunks of eight elements.
  static constexpr int kRowThreads = Way::kWidth / 8;
  TCM_DEVICE static int loaded_row(int u) {
    return thread_index() / kRowThreads + u * (kPatternThreads / kRowThreads);
  }
  TCM_DEVICE static int loaded_chunk() { return thread_index() % kRowThreads; }

  // Where a place's rows stand, and whether they are there.
  TCM_DEVICE int position_of(PatternPlace at, int u) const {
    return (direction_.other_tile + at.tile) * kTile + at.word * kWordBits + loaded_row(u);
  }

  TCM_DEVICE void load_row_numbers(PatternPlace at) {
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int position = position_of(at, u);
      const bool there = at.tile < end_tile_ && position < other_.n;
      row_number_[u] = there ? static_cast<int>(other_.order[position]) : -1;
    }
  }

  // Rows and bits, after load_row_numbers of the same place.
  TCM_DEVICE void load(PatternPlace at) {
    if (at.tile >= end_tile_) return;
    const int d = first_d_ + loaded_chunk() * 8;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const bool there = row_number_[u] >= 0;
      factor_[u] = there ? other_.inverse[position_of(at, u)] : 0.0f;
      const Row* row = static_cast<const Row*>(other_.x) + int64_t{max(row_number_[u], 0)} * shape_.dim;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        loaded_[u][c] = there ? load_chunk(row, d + c * kPerChunk<Row>, shape_) : Chunk{};
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) words_[r] = words_of(r, at.tile)[at.word];
  }

  TCM_DEVICE static int buffer_at(int buffer) { return buffer * kPatternBufferBytes<Way>; }
  TCM_DEVICE static SharedArray<float> factors(int buffer) {
    return shared_memory<float>(buffer_at(buffer) + Way::kParts * kPartBytes<Way>);
  }
  // Byte of a row's chunk of eight elements within a part, chunks exchanged so that ldmatrix reads every bank
  // once.
  TCM_DEVICE static int chunk_at(int row, int chunk) {
    return row * Way::kWidth * 2 + (chunk ^ (row % 8)) * kChunk;
  }

  TCM_DEVICE void store_rows(int buffer) {
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int at = buffer_at(buffer) + chunk_at(loaded_row(u), loaded_chunk());
      if constexpr (Way::kWeights) {
        shared_memory<Chunk>(at)[0] = loaded_[u][0];
      } else {
        Chunk parts[Way::kParts] = {};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float rest = element(loaded_[u][i / kPerChunk<Row>], i % kPerChunk<Row>, Row()) * factor_[u];
#pragma unroll
          for (int p = 0; p < Way::kParts; ++p) {
            const Part part(rest);
            parts[p].word[i / 2] |= raw_bits(part) << (i % 2 * 16);
            rest -= static_cast<float>(part);
          }
        }
#pragma unroll
        for (int p = 0; p < Way::kParts; ++p) shared_memory<Chunk>(at + p * kPartBytes<Way>)[0] = parts[p];
      }
      if (loaded_chunk() == 0) factors(buffer)[loaded_row(u)] = factor_[u];
    }
  }

  // What stands for a 1 in columns k and k + 1 of the pattern.
  TCM_DEVICE static uint32_t ones(int buffer, int k) {
    if constexpr (Way::kWeights) {
      const float even = factors(buffer)[k], odd = factors(buffer)[k + 1];
      return raw_bits(Part(even)) | raw_bits(Part(odd)) << 16;
    } else {
      const uint32_t one = raw_bits(Part(1.0f));
      return one | one << 16;
    }
  }
  // Adds 32 rows: a thread has rows' words whole, and makes of them the fragments of the pattern.
  TCM_DEVICE void multiply(PatternPlace at, uint32_t (&words)[kRows], int buffer,
                           float (&acc)[2][kColumns][4]) {
    const int from = at.tile * kTile + at.word * kWordBits, lane = lane_index();
    if (positive_ || (from < band_end_ && from + kWordBits > band_begin_)) {
      const int first = (direction_.own_tile + block_index()) * kTile;
      const int column0 = direction_.other_tile * kTile + from;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {  // read again: they are rarely asked for, and registers are few
        const int position = min(first + row(r), own_.n - 1);
        const uint32_t same =
            bits_between(own_.same_begin[position] - column0, own_.same_end[position] - column0);
        words[r] &= positive_ ? same : ~same;
      }
    }
    const SharedArray<char> rows = shared_memory<char>(buffer_at(buffer));
    uint32_t a[kPatternRows / 16][2][4];
#pragma unroll
    for (int k = 0; k < kPatternRows; k += 8) {
      const uint32_t one = ones(buffer, k + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        // Columns k + 2 (lane % 4) and the next: the signs of byte k / 8.
        const uint32_t own = words[r] >> (lane % 4 * 2);
        a[k / 16][r / 2][k / 8 % 2 * 2 + r % 2] = halves_by_sign(own << 7, own << 6, k / 8) & one;
      }
    }
    // The last parts first: they are small, and so is what is cut off of their sum.
#pragma unroll
    for (int p = Way::kParts - 1; p >= 0; --p) {
#pragma unroll
      for (int k = 0; k < kPatternRows / 16; ++k) {
#pragma unroll
        for (int j = 0; j < kColumns; j += 2) {
          uint32_t b[4];
          load_matrices_transposed(b, rows,
                                   p * kPartBytes<Way> + chunk_at(k * 16 + lane % 16, j + lane / 16));
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
  int rows_there_, begin_tile_, end_tile_;
  int band_begin_, band_end_;  // columns that hold the block's classes
  const uint32_t* own_bits_;   // of the thread's first row
  bool touched_ = false;
  float sum_[2][kColumns][4] = {};
  Chunk loaded_[kLoads][kChunks];
  float factor_[kLoads];
  int row_number_[kLoads];
  uint32_t words_[kRows];
};

// P (z = 0) or Q (z = 1) of a tile of rows (x), Way::kWidth columns (y), over the other side of a
// super-tile.
template <class Way>
TCM_KERNEL(kPatternThreads, 2)
patterns_kernel(TCM_PARAMETER(Side) own, TCM_PARAMETER(Side) other, TCM_PARAMETER(Shape) shape,
                TCM_PARAMETER(Direction) direction, TCM_PARAMETER(Found) found, const float* block_sums) {
  if (is_sparse(found)) return;
  Patterns<Way>(own, other, shape, direction, found.list_most).run(block_sums);
}

}  // namespace tcm::cuda
