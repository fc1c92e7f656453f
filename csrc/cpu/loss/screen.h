// Stage 2, screen: which pairs of a super-tile are hard, one bit each, and what they add to the loss.
//
// A tile is first multiplied in codes (coding.h), several times faster than in the compute dtype, or only
// one code a class is (classes.h). By the certificate (certificate.h) that proves almost every pair
// harmless; the few that are left are evaluated in full precision, one inner product each, in row order. A
// tile with too many left is multiplied in full precision as a whole; one whose pairs are all proven hard
// needs no similarity at all, because Σ s = (sum of its rows)·(sum of its columns). Which happens follows
// from the data alone, so results repeat bit for bit. No pair is decided without proof.
#pragma once

#include <cstdint>

#include "plan.h"

namespace tcm::cpu {

// Tiles [row_tile, row_tile + row_count) x [col_tile, col_tile + col_count) of the matrix. In the self
// case a super-tile on the diagonal has only the tiles on and above it.
struct SuperTile {
  int64_t row_tile, row_count;
  int64_t col_tile, col_count;
  bool diagonal;

  static SuperTile at(const Plan& plan, int64_t super_row, int64_t super_col);
  int64_t rows(const Plan& plan) const { return clipped(plan.rows - row_tile * plan.tile, plan); }
  int64_t columns(const Plan& plan) const { return clipped(plan.columns - col_tile * plan.tile, plan); }
  bool holds(int64_t a, int64_t b) const { return !diagonal || b >= a; }
  // Position of tile (a, b), both relative to the super-tile, among its bit maps and sums.
  int64_t slot(int64_t a, int64_t b) const { return a * col_count + b; }

 private:
  static int64_t clipped(int64_t left, const Plan& plan) {
    return left < plan.super_rows() ? left : plan.super_rows();
  }
};

// Rows of block a, columns of block b (relative), clipped at the edge of the matrix.
inline int64_t block_rows(const Plan& plan, const SuperTile& super, int64_t a) {
  const int64_t left = plan.rows - (super.row_tile + a) * plan.tile;
  return left < plan.tile ? left : plan.tile;
}
inline int64_t block_columns(const Plan& plan, const SuperTile& super, int64_t b) {
  const int64_t left = plan.columns - (super.col_tile + b) * plan.tile;
  return left < plan.tile ? left : plan.tile;
}

// Where row `row` of the matrix meets the columns of a block that starts at `col` and has `count`.
inline RowSpan row_span(const Plan& plan, const Workspace& work, int64_t row, int64_t col, int64_t count) {
  const int64_t first = plan.self ? row + 1 - col : 0;  // self: every pair once, above the diagonal
  return {first < 0 ? 0 : first, count, work.same_begin[row] - col, work.same_end[row] - col};
}

// Fills work.bits and work.tile_sums for every tile of `super`. Where `can_defer`, a tile's sums may be left
// to the adding up, which must then add to the rows.
template <class T>
void screen(const Plan& plan, const SuperTile& super, const Screening& screening, Margins<double> margins,
            bool can_defer, const Workspace& work);

}  // namespace tcm::cpu
