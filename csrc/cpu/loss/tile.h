// One tile of a super-tile: its operands, where its results go, and inner products of chosen pairs.
#pragma once

#include "bits.h"
#include "common/hard_pair.h"
#include "cpu/simd/simd.h"
#include "screening_plan.h"
#include "super_tile.h"

namespace tcm::cpu {

template <class T>
struct Tile {
  const Plan& plan;
  const Workspace& work;
  Margins<double> margins;
  int64_t row0, col0, rows, columns;
  int64_t row_block, col_block;  // within the packed rows and columns
  uint64_t* bits;                // (tile, words)
  TileSums* sums;

  const T* unit_rows() const { return at_block(work.packed_rows, row_block); }
  const T* unit_columns() const { return at_block(work.packed_columns, col_block); }
  const void* row_codes() const { return codes_at(work.packed_rows, row_block); }
  const void* column_codes() const { return codes_at(work.packed_columns, col_block); }
  RowCode row_code(int64_t i) const {
    const int64_t row = row_block * plan.tile + i;
    return {work.packed_rows.scale[row], work.packed_rows.error[row]};
  }
  const float* column_scales() const { return work.packed_columns.scale + col_block * plan.tile; }
  float row_tail(int64_t i) const { return work.packed_rows.tail[row_block * plan.tile + i]; }
  const float* column_tails() const { return work.packed_columns.tail + col_block * plan.tile; }
  const float* column_errors() const { return work.packed_columns.error + col_block * plan.tile; }
  RowSpan span(int64_t i) const { return row_span(plan, work, row0 + i, col0, columns); }
  // The number of centroids of the block of rows; 0 where centroids do not pay.
  int64_t classes() const { return work.packed_rows.centroids.count[row_block]; }
  uint64_t* row_bits(int64_t i) const { return bits + i * plan.words(); }
  int64_t words() const { return words_of(columns); }
  // The most open pairs that get an inner product each; with more, the tile is multiplied in full precision.
  int64_t most_open() const { return int64_t(kMaxOpenShare * double(rows * columns)); }
  // The column that is the same sample as row i, -1 if it is not in this tile.
  int64_t self_index(int64_t i) const {
    const int64_t column = work.self_index[row0 + i] - col0;
    return work.self_index[row0 + i] >= 0 && column >= 0 && column < columns ? column : -1;
  }
  void set(int64_t i, int64_t j) const { row_bits(i)[j / 64] |= uint64_t(1) << (j % 64); }
  void clear(int64_t i, int64_t j) const { row_bits(i)[j / 64] &= ~(uint64_t(1) << (j % 64)); }
  void clear_self(int64_t i) const {
    if (const int64_t j = self_index(i); j >= 0) clear(i, j);
  }

 private:
  const T* at_block(const PackedRows& packed, int64_t block) const {
    return static_cast<const T*>(packed.unit) + block * plan.tile * plan.dim;
  }
  const void* codes_at(const PackedRows& packed, int64_t block) const {
    return static_cast<const char*>(packed.code) + block * plan.tile * plan.code_bytes();
  }
};

// Writes the columns of row i whose bits are set in word_of(i, w), and returns how many there are. `columns`
// has room for kLargestTile.
template <class T, class WordOf>
int64_t columns_of_row(const Tile<T>& tile, int64_t i, const WordOf& word_of, int32_t* columns) {
  int64_t count = 0;
  for (int64_t w = 0; w < tile.words(); ++w) {
    for_each_bit(word_of(i, w), w * 64, [&](int64_t j) { columns[count++] = int32_t(j); });
  }
  return count;
}

// Calls visit(i, j, s) for every pair (i, j) whose bit is set in word_of(i, w), row by row, with its
// similarity s. All words of a row are read before its first visit, so visits may change them.
template <class T, class WordOf, class Visit>
void for_each_similarity(const Tile<T>& tile, const WordOf& word_of, const Visit& visit) {
  const Simd<T>& loops = simd<T>();
  int32_t columns[kLargestTile];
  T similarities[kLargestTile];
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t count = columns_of_row(tile, i, word_of, columns);
    if (count == 0) continue;
    loops.dots(tile.unit_rows() + i * tile.plan.dim, tile.unit_columns(), columns, count, tile.plan.dim,
               similarities);
    for (int64_t k = 0; k < count; ++k) visit(i, columns[k], similarities[k]);
  }
}

// Decides every pair marked in tile.bits by its inner product: clears those not hard, and sums the others.
template <class T>
TileSums evaluate_marked(const Tile<T>& tile) {
  const Margins<T> margins = thresholds<T>(tile.margins);
  TileSums sums{};
  for_each_similarity(
      tile, [&](int64_t i, int64_t w) { return tile.row_bits(i)[w]; },
      [&](int64_t i, int64_t j, T s) {
        const bool same = tile.span(i).same(j);
        if (!is_hard(s, same, margins)) {
          tile.clear(i, j);
          return;
        }
        sums.of(same).count += 1;
        sums.of(same).similarity_sum += double(s);
      });
  return sums;
}

}  // namespace tcm::cpu
