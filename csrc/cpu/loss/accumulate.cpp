#include "accumulate.h"

#include <algorithm>

#include "bits.h"
#include "cpu/torch_shim.h"
#include "screening_plan.h"

namespace tcm::cpu {
namespace {

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
  double* deferred(int64_t chunk) const {
    return work.deferred + (super.slot(a, b) * plan.chunks() + chunk) * 2;
  }
  const TileSums& sums() const { return work.tile_sums[super.slot(a, b)]; }

  // Unit rows of the tile's rows and columns, from column `from` of D on.
  const T* unit_row(int64_t i, int64_t from) const {
    return static_cast<const T*>(work.packed_rows.unit) + (a * plan.tile + i) * plan.dim + from;
  }
  const T* unit_column(int64_t j, int64_t from) const {
    return static_cast<const T*>(work.packed_columns.unit) + (b * plan.tile + j) * plan.dim + from;
  }

  int64_t words() const { return words_of(columns()); }
  // Hard pairs of one sign among the 64 columns of word w in row i.
  uint64_t word(int64_t i, int64_t w, bool positive) const {
    const uint64_t bits = work.bits[(super.slot(a, b) * plan.tile + i) * plan.words() + w];
    if (bits == 0) return 0;
    const uint64_t same = row_span(plan, work, row0() + i, col0(), columns()).same_bits(w);
    return bits & (positive ? same : ~same);
  }
};

// The transpose of a 64 x 64 matrix of bits, in place: halves of ever smaller blocks change places.
void transpose(uint64_t (&rows)[64]) {
  uint64_t low = 0xffffffff;
  for (int half = 32; half > 0; half /= 2, low ^= low << half) {
    for (int k = 0; k < 64; k = (k + half + 1) & ~half) {
      const uint64_t swap = (rows[k] >> half ^ rows[k + half]) & low;
      rows[k] ^= swap << half;
      rows[k + half] ^= swap;
    }
  }
}

// The pairs of one sign as a matrix of bits, (rows, words) as stored or its transpose (columns, words).
// Returns the number of words.
template <bool kToRows, class T>
int64_t gather_pattern(const TileView<T>& tile, bool positive, uint64_t* pattern) {
  const int64_t words = words_of(kToRows ? tile.columns() : tile.rows());
  for (int64_t i0 = 0; i0 < tile.rows(); i0 += 64) {
    for (int64_t w = 0; w < tile.words(); ++w) {
      uint64_t block[64] = {};
      for (int64_t i = i0; i < std::min(tile.rows(), i0 + 64); ++i) block[i - i0] = tile.word(i, w, positive);
      if (!kToRows) transpose(block);
      const int64_t first = kToRows ? i0 : w * 64, word = kToRows ? w : i0 / 64;
      const int64_t last = std::min(kToRows ? tile.rows() : tile.columns(), first + 64);
      for (int64_t k = first; k < last; ++k) pattern[k * words + word] = block[k - first];
    }
  }
  return words;
}

// Columns [from, from + width) of D, which a task covers, and where it adds them up.
template <class T>
struct Target {
  T* sums;  // (rows of one side, D), in the user's order
  int64_t from;
  int64_t width;
  int64_t worker;
};

// Adds one tile, one sign: to the sums of its rows the unit rows of its columns, or the reverse. Sums of
// similarities that screening deferred are found on the way to the rows.
template <bool kToRows, class T>
void accumulate_tile(const TileView<T>& tile, bool positive, Target<T> to) {
  const Plan& plan = tile.plan;
  const Workspace& work = tile.work;
  const Simd<T>& loops = simd<T>();
  const int64_t count = positive ? tile.sums().positives : tile.sums().negatives;
  if (count == 0) return;
  const int64_t pairs = tile.rows() * tile.columns();
  const int64_t own = kToRows ? tile.rows() : tile.columns();
  const int64_t others = kToRows ? tile.columns() : tile.rows();
  const auto sum_of = [&](int64_t k) {
    const LabelledRow& row = kToRows ? work.row_order[tile.row0() + k] : work.col_order[tile.col0() + k];
    return to.sums + row.index * plan.dim + to.from;
  };
  const auto unit_of_other = [&](int64_t k) {
    return kToRows ? tile.unit_column(k, to.from) : tile.unit_row(k, to.from);
  };
  const bool deferred = kToRows && (positive ? tile.sums().positive_deferred : tile.sums().negative_deferred);
  T* product = work.row_scratch<T>(plan, to.worker);
  T* scratch = work.tile_scratch<T>(plan, to.worker);
  auto* pattern = reinterpret_cast<uint64_t*>(scratch + kPatternScratch + plan.tile * kPatternPanel);

  if (is_at_most(count, kMaxListShare, pairs) && !deferred) {
    for (int64_t i = 0; i < tile.rows(); ++i) {
      for (int64_t w = 0; w < tile.words(); ++w) {
        for_each_bit(tile.word(i, w, positive), w * 64, [&](int64_t j) {
          loops.add(sum_of(kToRows ? i : j), unit_of_other(kToRows ? j : i), to.width);
        });
      }
    }
  } else if (is_at_most(pairs - count, kMaxListShare, pairs) && !deferred) {
    const int64_t words = gather_pattern<kToRows>(tile, positive, pattern);
    const double* all = (kToRows ? work.packed_columns.block_sum + tile.b * plan.dim
                                 : work.packed_rows.block_sum + tile.a * plan.dim) +
                        to.from;
    for (int64_t k = 0; k < to.width; ++k) product[k] = static_cast<T>(all[k]);
    const RowSpan whole{0, others, 0, 0};
    for (int64_t i = 0; i < own; ++i) {
      const uint64_t* bits = pattern + i * words;
      int64_t hard = 0;
      for (int64_t w = 0; w < words; ++w) hard += __builtin_popcountll(bits[w]);
      // A row with few hard pairs is a list all the same: a sum of none is to be exactly 0.
      const bool full = 2 * hard >= others;
      if (full) loops.add(sum_of(i), product, to.width);
      for (int64_t w = 0; w < words; ++w) {
        for_each_bit(full ? ~bits[w] & whole.pair_bits(w) : bits[w], w * 64, [&](int64_t k) {
          (full ? loops.subtract : loops.add)(sum_of(i), unit_of_other(k), to.width);
        });
      }
    }
  } else {
    const int64_t stride = (to.width + kPatternPanel - 1) / kPatternPanel * kPatternPanel;
    const int64_t words = gather_pattern<kToRows>(tile, positive, pattern);
    loops.pattern_product(pattern, words, own, unit_of_other(0), plan.dim, others, to.width, scratch, product,
                          stride);
    double similarities = 0;  // Σ over the hard pairs of s, as far as these columns of D go
    for (int64_t i = 0; i < own; ++i) {
      const T* row = product + i * stride;
      if (deferred) similarities += double(loops.dot(tile.unit_row(i, to.from), row, to.width));
      loops.add(sum_of(i), row, to.width);
    }
    if (deferred) tile.deferred(to.from / plan.chunk)[positive ? 0 : 1] = similarities;
  }
}

// Puts the sums found while adding up in the place that screening left for them.
template <class T>
void collect_deferred(const TileView<T>& tile) {
  TileSums& sums = tile.work.tile_sums[tile.super.slot(tile.a, tile.b)];
  for (int64_t chunk = 0; chunk < tile.plan.chunks(); ++chunk) {
    if (sums.positive_deferred) sums.positive += tile.deferred(chunk)[0];
    if (sums.negative_deferred) sums.negative += tile.deferred(chunk)[1];
  }
}

}  // namespace

template <class T>
void accumulate(const Plan& plan, const SuperTile& super, const Workspace& work, PartnerSums<T> of_rows,
                PartnerSums<T> of_columns) {
  // Tasks: (block, chunk of D, sign), first the row blocks, then the column blocks. On the diagonal of the
  // self case both are the same rows, so one task takes a block's tiles in both directions.
  const bool both = super.diagonal;
  const int64_t row_blocks = of_rows.positive ? super.row_count : 0;
  const int64_t column_blocks = of_columns.positive && !both ? super.col_count : 0;
  const int64_t chunks = plan.chunks();
  for_each_task((row_blocks + column_blocks) * chunks * 2, plan.threads, [&](int64_t task, int64_t worker) {
    const bool positive = task % 2 == 0;
    const int64_t from = (task / 2 % chunks) * plan.chunk;
    const int64_t block = task / 2 / chunks;
    const auto target = [&](PartnerSums<T> sums) {
      return Target<T>{positive ? sums.positive : sums.negative, from, std::min(plan.chunk, plan.dim - from),
                       worker};
    };
    const auto tile = [&](int64_t a, int64_t b) { return TileView<T>{plan, super, work, a, b}; };
    if (block < row_blocks) {
      for (int64_t a = 0; both && a <= block; ++a) {
        accumulate_tile<false>(tile(a, block), positive, target(of_rows));
      }
      for (int64_t b = both ? block : 0; b < super.col_count; ++b) {
        accumulate_tile<true>(tile(block, b), positive, target(of_rows));
      }
    } else {
      for (int64_t a = 0; a < super.row_count; ++a) {
        accumulate_tile<false>(tile(a, block - row_blocks), positive, target(of_columns));
      }
    }
  });
  for (int64_t a = 0; a < super.row_count; ++a) {
    for (int64_t b = 0; b < super.col_count; ++b) {
      if (super.holds(a, b)) collect_deferred(TileView<T>{plan, super, work, a, b});
    }
  }
}

template void accumulate<float>(const Plan&, const SuperTile&, const Workspace&, PartnerSums<float>,
                                PartnerSums<float>);
template void accumulate<double>(const Plan&, const SuperTile&, const Workspace&, PartnerSums<double>,
                                 PartnerSums<double>);

}  // namespace tcm::cpu
