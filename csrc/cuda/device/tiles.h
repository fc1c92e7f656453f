// Tiles of the similarity matrix: their order, the directory that says what each holds, and words of bits.
// Plain arithmetic, for host and device, tested on the host up to millions of rows.
//
// A tile has 128 x 128 pairs. Its bits are at an offset that follows from its row and column, and the
// directory has a uint32 entry per tile that only says how to read them:
//
//   0                                 nothing
//   n                                 n candidates, not yet decided
//   kDecided | packed_counts(p, n)    hard pairs: p of one class and n of two classes
//
// Hard pairs of one sign of a decided tile are a list where they are few, else a pattern. Where all but a few
// pairs of the tile are hard negatives, these are the whole tile less a list (is_whole_less_a_list).
#pragma once

#include <cstdint>

#include "common/ceil_div.h"
#include "common/hard_pair.h"

namespace tcm::cuda {

constexpr int kTile = 128;
constexpr int kWordBits = 32;
constexpr int kTileWords = kTile / kWordBits;
constexpr int kGroup = 8;  // rows of tiles visited together, so that their columns stay in the L2 cache

constexpr TCM_HOST_DEVICE int64_t tiles_of(int64_t rows) { return ceil_div(rows, kTile); }

// A tile within a super-tile.
struct TilePlace {
  int row;
  int column;
};

// A part of the matrix: first tile and number of tiles of either side. Where `diagonal`, only tiles on and
// above the diagonal are visited.
struct SuperTile {
  int row;
  int rows;
  int column;
  int columns;
  bool diagonal;

  // The positions of the first row and column of a tile.
  TCM_HOST_DEVICE int first_row(TilePlace at) const { return (row + at.row) * kTile; }
  TCM_HOST_DEVICE int first_column(TilePlace at) const { return (column + at.column) * kTile; }
};

// Every `step`-th tile of a super-tile from number `first` on. Tiles are numbered by groups of kGroup rows,
// column by column within a group. On the diagonal a group begins at its own first column, and its tiles
// below the diagonal are skipped. A super-tile has less than 2^31 tiles; a walk keeps three numbers.
class TileWalk {
 public:
  TCM_HOST_DEVICE TileWalk(const SuperTile& part, int first, int step) : number_(first) {
    settle(part, step);
  }

  TCM_HOST_DEVICE bool done(const SuperTile& part) const { return group_ >= part.rows; }

  // Within the super-tile.
  TCM_HOST_DEVICE TilePlace place(const SuperTile& part) const {
    const int at = number_ - group_begin_, height = group_height(part);
    return {group_ + at % height, first_column(part) + at / height};
  }

  TCM_HOST_DEVICE void advance(const SuperTile& part, int step) {
    number_ += step;
    settle(part, step);
  }

 private:
  TCM_HOST_DEVICE int group_height(const SuperTile& part) const {
    return part.rows - group_ < kGroup ? part.rows - group_ : kGroup;
  }
  TCM_HOST_DEVICE int first_column(const SuperTile& part) const { return part.diagonal ? group_ : 0; }
  TCM_HOST_DEVICE int group_size(const SuperTile& part) const {
    return group_height(part) * (part.columns - first_column(part));
  }

  TCM_HOST_DEVICE void settle(const SuperTile& part, int step) {
    for (; !done(part); number_ += step) {
      while (!done(part) && number_ - group_begin_ >= group_size(part)) {
        group_begin_ += group_size(part);
        group_ += kGroup;
      }
      if (done(part)) return;
      const TilePlace at = place(part);
      if (!part.diagonal || at.row <= at.column) return;
    }
  }

  int number_;
  int group_ = 0;        // first row of the group
  int group_begin_ = 0;  // number of its first tile
};

constexpr uint32_t kDecided = 1u << 30;
constexpr int kShiftPositives = 15;
constexpr uint32_t kCount = (1u << 15) - 1;

// The numbers of hard pairs of one class and of two in one word, so that one addition adds both.
constexpr TCM_HOST_DEVICE uint32_t packed_counts(uint32_t positives, uint32_t negatives) {
  return positives << kShiftPositives | negatives;
}
constexpr TCM_HOST_DEVICE bool is_decided(uint32_t entry) { return (entry & kDecided) != 0; }
constexpr TCM_HOST_DEVICE int hard_positives(uint32_t entry) {
  return static_cast<int>(entry >> kShiftPositives & kCount);
}
constexpr TCM_HOST_DEVICE int hard_negatives(uint32_t entry) { return static_cast<int>(entry & kCount); }

// Whether `count` hard pairs of one sign are taken one by one.
constexpr TCM_HOST_DEVICE bool is_list(int count, int list_most) { return count > 0 && count <= list_most; }

// Whether a tile with `negatives` hard negatives among `pairs` pairs is taken whole, less all others.
constexpr TCM_HOST_DEVICE bool is_whole_less_a_list(int negatives, int pairs, int list_most) {
  return negatives > list_most && negatives + list_most >= pairs;
}

// Whether the sum of a tile that is taken whole is added to a row with `hard` hard pairs in it. A row with
// few is a list instead: without hard negatives its Q has to be exactly 0.
constexpr TCM_HOST_DEVICE bool takes_whole(int hard, int columns) { return 2 * hard >= columns; }

// A word whose bits below `columns` are set: none for 0 or less, all for 32 or more.
constexpr TCM_HOST_DEVICE uint32_t bits_below(int columns) {
  return columns >= kWordBits ? ~0u : columns <= 0 ? 0u : (1u << columns) - 1;
}
// A word whose bits at columns [begin, end) are set.
constexpr TCM_HOST_DEVICE uint32_t bits_between(int begin, int end) {
  return bits_below(end) & ~bits_below(begin);
}

}  // namespace tcm::cuda
