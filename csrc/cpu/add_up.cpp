#include "add_up.h"

#include <algorithm>

#include "glue.h"

namespace tcm::cpu {
namespace {

// A list adds D numbers a pair, a product multiplies the whole tile. Measured on a Xeon with AVX-512 at
// D = 128 and 512: a listed pair costs as much as about eight pairs of a product.
constexpr int64_t kPatternFrom = 8;  // one pair in so many hard: from there on a product

// One tile as seen by a task.
template <class T>
struct TileView {
  const Plan& plan;
  const SuperTile& super;
  const Workspace& work;
  int64_t a, b;  // block row and column within the super-tile

  int64_t row0() const { return (super.row_tile + a) * plan.tile; }
  int64_t col0() const { return (super.col_tile + b) * plan.tile; }
  int64_t rows() const { return block_rows(plan, super, a); }
  int64_t columns() const { return block_columns(plan, super, b); }
  const TileSums& sums() const { return work.tile_sums[super.slot(a, b)]; }

  // Unit rows of the tile's rows and columns, from column `from` of D on.
  const T* unit_row(int64_t i, int64_t from) const {
    return static_cast<const T*>(work.packed_rows) + (a * plan.tile + i) * plan.dim + from;
  }
  const T* unit_column(int64_t j, int64_t from) const {
    return static_cast<const T*>(work.packed_columns) + (b * plan.tile + j) * plan.dim + from;
  }

  // Hard pairs of one sign among the 64 columns of word w in row i.
  uint64_t word(int64_t i, int64_t w, bool positive) const {
    const uint64_t bits = work.bits[(super.slot(a, b) * plan.tile + i) * plan.words() + w];
    if (bits == 0) return 0;
    const int64_t at = col0() + w * 64;
    const uint64_t same = below(work.same_end[row0() + i] - at) & ~below(work.same_begin[row0() + i] - at);
    return bits & (positive ? same : ~same);
  }

 private:
  static uint64_t below(int64_t n) {
    return n <= 0 ? 0 : n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1;
  }
};

// Every hard pair (i, j) of one sign in the tile, row by row.
template <class T, class Visit>
void for_each_hard_pair(const TileView<T>& tile, bool positive, const Visit& visit) {
  const int64_t words = (tile.columns() + 63) / 64;
  for (int64_t i = 0; i < tile.rows(); ++i) {
    for (int64_t w = 0; w < words; ++w) {
      for (uint64_t bits = tile.word(i, w, positive); bits; bits &= bits - 1) {
        visit(i, w * 64 + __builtin_ctzll(bits));
      }
    }
  }
}

// The pairs of one sign as a (rows, tile) matrix of 0 and 1.
template <class T>
void spread(const TileView<T>& tile, bool positive, T* weights) {
  const int64_t words = (tile.columns() + 63) / 64;
  for (int64_t i = 0; i < tile.rows(); ++i) {
    for (int64_t w = 0; w < words; ++w) {
      const uint64_t bits = tile.word(i, w, positive);
      T* out = weights + i * tile.plan.tile + w * 64;
      for (int k = 0; k < 64; ++k) out[k] = T((bits >> k) & 1);
    }
  }
}

// Adds one tile, one sign, to columns [from, from + width) of the sums of its rows (or of its columns).
template <class T>
void add_tile(const TileView<T>& tile, bool to_rows, bool positive, T* sums, int64_t from, int64_t width,
              int64_t worker) {
  const int64_t count = positive ? tile.sums().positives : tile.sums().negatives;
  if (count == 0) return;
  const Plan& plan = tile.plan;
  const Workspace& work = tile.work;
  const auto sum_of_row = [&](int64_t i) {
    return sums + work.row_order[tile.row0() + i].index * plan.dim + from;
  };
  const auto sum_of_column = [&](int64_t j) {
    return sums + work.col_order[tile.col0() + j].index * plan.dim + from;
  };
  const auto add = simd<T>().add;
  if (count * kPatternFrom < tile.rows() * tile.columns()) {
    if (to_rows) {
      for_each_hard_pair(tile, positive, [&](int64_t i, int64_t j) {
        add(sum_of_row(i), tile.unit_column(j, from), width);
      });
    } else {
      for_each_hard_pair(tile, positive, [&](int64_t i, int64_t j) {
        add(sum_of_column(j), tile.unit_row(i, from), width);
      });
    }
    return;
  }
  T* weights = work.tile_scratch<T>(plan, worker);
  T* product = work.row_scratch<T>(plan, worker);
  spread(tile, positive, weights);
  const Matrix<const T> w{weights, tile.rows(), tile.columns(), plan.tile};
  if (to_rows) {
    matmul<T>(w, {tile.unit_column(0, from), tile.columns(), width, plan.dim},
              {product, tile.rows(), width, width});
    for (int64_t i = 0; i < tile.rows(); ++i) add(sum_of_row(i), product + i * width, width);
  } else {
    matmul<T>(w.transposed(), {tile.unit_row(0, from), tile.rows(), width, plan.dim},
              {product, tile.columns(), width, width});
    for (int64_t j = 0; j < tile.columns(); ++j) add(sum_of_column(j), product + j * width, width);
  }
}

}  // namespace

template <class T>
void add_up(const Plan& plan, const SuperTile& super, const Workspace& work, Sums<T> of_rows,
            Sums<T> of_columns) {
  // Tasks: (block, chunk of D, sign), first the row blocks, then the column blocks. On the diagonal of the
  // self case both are the same rows, so one task takes a block's tiles in both directions.
  const bool both = super.diagonal;
  const int64_t row_blocks = of_rows.positive ? super.row_count : 0;
  const int64_t column_blocks = of_columns.positive && !both ? super.col_count : 0;
  const int64_t chunks = (plan.dim + plan.chunk - 1) / plan.chunk;
  for_each_task((row_blocks + column_blocks) * chunks * 2, plan.threads, [&](int64_t task, int64_t worker) {
    const bool positive = task % 2 == 0;
    const int64_t from = (task / 2 % chunks) * plan.chunk;
    const int64_t width = std::min(plan.chunk, plan.dim - from);
    const int64_t block = task / 2 / chunks;
    const auto add = [&](int64_t a, int64_t b, bool to_rows, Sums<T> sums) {
      const TileView<T> tile{plan, super, work, a, b};
      add_tile(tile, to_rows, positive, positive ? sums.positive : sums.negative, from, width, worker);
    };
    if (block < row_blocks) {
      for (int64_t a = 0; both && a <= block; ++a) add(a, block, false, of_rows);
      for (int64_t b = both ? block : 0; b < super.col_count; ++b) add(block, b, true, of_rows);
    } else {
      for (int64_t a = 0; a < super.row_count; ++a) add(a, block - row_blocks, false, of_columns);
    }
  });
}

template void add_up<float>(const Plan&, const SuperTile&, const Workspace&, Sums<float>, Sums<float>);
template void add_up<double>(const Plan&, const SuperTile&, const Workspace&, Sums<double>, Sums<double>);

}  // namespace tcm::cpu
