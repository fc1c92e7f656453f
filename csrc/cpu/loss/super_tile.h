// Parts of the similarity matrix: super-tiles, their blocks, and the pairs of a row with a block of columns.
#pragma once

#include <algorithm>
#include <cstdint>

#include "workspace.h"

namespace tcm::cpu {

// Tiles [row_tile, row_tile + row_count) x [col_tile, col_tile + col_count) of the matrix. In the self case a
// super-tile on the diagonal has only the tiles on and above the diagonal.
struct SuperTile {
  int64_t row_tile, row_count;
  int64_t col_tile, col_count;
  bool diagonal;

  static SuperTile at(const Plan& plan, int64_t super_row, int64_t super_col) {
    const int64_t row_tile = super_row * plan.super_edge, col_tile = super_col * plan.super_edge;
    return {row_tile, std::min(plan.super_edge, plan.row_tiles() - row_tile), col_tile,
            std::min(plan.super_edge, plan.column_tiles() - col_tile), plan.self && super_row == super_col};
  }
  int64_t rows(const Plan& plan) const { return clipped(plan.rows - row_tile * plan.tile, plan); }
  int64_t columns(const Plan& plan) const { return clipped(plan.columns - col_tile * plan.tile, plan); }
  bool holds(int64_t a, int64_t b) const { return !diagonal || b >= a; }
  // Index of tile (a, b), both relative to the super-tile, into the bit maps and sums.
  int64_t slot(int64_t a, int64_t b) const { return a * col_count + b; }

 private:
  static int64_t clipped(int64_t left, const Plan& plan) {
    return left < plan.super_rows() ? left : plan.super_rows();
  }
};

// Number of rows of block a and of columns of block b (relative), clipped at the edge of the matrix.
inline int64_t block_rows(const Plan& plan, const SuperTile& super, int64_t a) {
  const int64_t left = plan.rows - (super.row_tile + a) * plan.tile;
  return left < plan.tile ? left : plan.tile;
}
inline int64_t block_columns(const Plan& plan, const SuperTile& super, int64_t b) {
  const int64_t left = plan.columns - (super.col_tile + b) * plan.tile;
  return left < plan.tile ? left : plan.tile;
}

// The pairs of row `row` of the matrix with the block of `count` columns that starts at `col`.
inline RowSpan row_span(const Plan& plan, const Workspace& work, int64_t row, int64_t col, int64_t count) {
  const int64_t first = plan.self ? row + 1 - col : 0;  // self: each pair once, above the diagonal
  return {first < 0 ? 0 : first, count, work.same_begin[row] - col, work.same_end[row] - col};
}

}  // namespace tcm::cpu
