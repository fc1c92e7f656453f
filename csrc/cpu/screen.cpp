#include "screen.h"

#include <algorithm>
#include <limits>

#include "glue.h"

namespace tcm::cpu {
namespace {

// One tile: similarities, the few that are no pairs made harmless, then one pass over each row.
template <class T>
void screen_tile(const Plan& plan, const SuperTile& super, int64_t a, int64_t b, Margins<T> margins,
                 const Workspace& work, T* s) {
  const int64_t tile = plan.tile;
  const int64_t row0 = (super.row_tile + a) * tile, col0 = (super.col_tile + b) * tile;
  const int64_t rows = block_rows(plan, super, a), columns = block_columns(plan, super, b);
  const Matrix<const T> x{static_cast<const T*>(work.packed_rows) + a * tile * plan.dim, rows, plan.dim,
                          plan.dim};
  const Matrix<const T> r{static_cast<const T*>(work.packed_columns) + b * tile * plan.dim, columns,
                          plan.dim, plan.dim};
  matmul<T>(x, r.transposed(), {s, rows, columns, tile});

  TileSums sums{};
  uint64_t* bits = work.bits + super.slot(a, b) * tile * plan.words();
  for (int64_t i = 0; i < rows; ++i) {
    const RowSpan span = row_span(plan, work, row0 + i, col0, columns);
    const int64_t twin = work.twin[row0 + i] - col0;
    if (work.twin[row0 + i] >= 0 && twin >= 0 && twin < columns) {
      s[i * tile + twin] = std::numeric_limits<T>::quiet_NaN();  // a NaN is never hard
    }
    simd<T>().scan_row(s + i * tile, span, margins, bits + i * plan.words(), &sums);
  }
  work.tile_sums[super.slot(a, b)] = sums;
}

}  // namespace

SuperTile SuperTile::at(const Plan& plan, int64_t super_row, int64_t super_col) {
  const int64_t row_tile = super_row * plan.super_tiles, col_tile = super_col * plan.super_tiles;
  return {row_tile, std::min(plan.super_tiles, plan.row_tiles() - row_tile),
          col_tile, std::min(plan.super_tiles, plan.column_tiles() - col_tile),
          plan.self && super_row == super_col};
}

template <class T>
void screen(const Plan& plan, const SuperTile& super, Margins<T> margins, const Workspace& work) {
  for_each_task(super.row_count * super.col_count, plan.threads, [&](int64_t task, int64_t worker) {
    const int64_t a = task / super.col_count, b = task % super.col_count;
    if (!super.holds(a, b)) return;
    screen_tile<T>(plan, super, a, b, margins, work, work.tile_scratch<T>(plan, worker));
  });
}

template void screen<float>(const Plan&, const SuperTile&, Margins<float>, const Workspace&);
template void screen<double>(const Plan&, const SuperTile&, Margins<double>, const Workspace&);

}  // namespace tcm::cpu
