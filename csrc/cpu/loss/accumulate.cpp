#include "accumulate.h"

#include <algorithm>

#include "bits.h"
#include "common/ceil_div.h"
#include "cpu/torch_shim.h"
#include "screening_plan.h"

namespace tcm::cpu {
namespace {

// One tile of a super-tile, for accumulation.
template <class T>
struct TileView {
  const Plan& plan;
  const SuperTile& super;
  const Workspace& work;
  int64_t a, b;  // blocks of rows and columns, relative to the super-tile

  int64_t row0() const { return (super.row_tile + a) * plan.tile; }
  int64_t col0() const { return (super.col_tile + b) * plan.tile; }
  int64_t rows() const { return block_rows(plan, super, a); }
  int64_t columns() const { return block_columns(plan, super, b); }
  double* deferred(int64_t chunk) const {
    return work.deferred + (super.slot(a, b) * plan.chunks() + chunk) * 2;
  }
  const TileSums& sums() const { return work.tile_sums[super.slot(a, b)]; }

  // The unit row of row i, or of column j, of the tile, from element `from` on.
  const T* unit_row(int64_t i, int64_t from) const {
    return static_cast<const T*>(work.packed_rows.unit) + (a * plan.tile + i) * plan.dim + from;
  }
  const T* unit_column(int64_t j, int64_t from) const {
    return static_cast<const T*>(work.packed_columns.unit) + (b * plan.tile + j) * plan.dim + from;
  }

  int64_t words() const { return words_of(columns()); }
  // The bits of the hard pairs of one sign in word w of row i.
  uint64_t word(int64_t i, int64_t w, bool positive) const {
    const uint64_t bits = work.bits[(super.slot(a, b) * plan.tile + i) * plan.words() + w];
    if (bits == 0) return 0;
    const uint64_t same = row_span(plan, work, row0() + i, col0(), columns()).same_bits(w);
    return bits & (positive ? same : ~same);
  }
};

// Transposes a 64 x 64 matrix of bits in place, by swapping off-diagonal quarters of blocks of halving size.
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

// Writes the pattern of one sign, (rows, words) as stored or transposed (columns, words); returns words.
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

// The columns [from, from + width) of D that a task covers, and the sums that it adds to.
template <class T>
struct Target {
  T* sums;  // (rows of one side, D), in the user's order
  int64_t from;
  int64_t width;
  int64_t worker;
};

// One tile and sign: the unit rows of its columns are added to the sums of its rows (kToRows), or the
// reverse. There is a function for each way to do that.
template <bool kToRows, class T>
class TileAccumulation {
 public:
  TileAccumulation(const TileView<T>& tile, bool positive, Target<T> to)
      : tile_(tile),
        positive_(positive),
        to_(to),
        product_(tile.work.template row_scratch<T>(tile.plan, to.worker)),
        scratch_(tile.work.template tile_scratch<T>(tile.plan, to.worker)),
        pattern_(reinterpret_cast<uint64_t*>(scratch_ + kPatternScratch + tile.plan.tile * kPatternPanel)) {}

  void run() const {
    const HardPairs& hard = tile_.sums().of(positive_);
    const int64_t count = hard.count, pairs = tile_.rows() * tile_.columns();
    if (count == 0) return;
    if (kToRows && hard.deferred) {
      tile_.deferred(to_.from / tile_.plan.chunk)[positive_ ? 0 : 1] = add_pattern(true);
    } else if (is_at_most(count, kMaxListShare, pairs)) {
      add_list();
    } else if (is_at_most(pairs - count, kMaxListShare, pairs)) {
      add_full_minus_list();
    } else {
      add_pattern(false);
    }
  }

 private:
  int64_t own() const { return kToRows ? tile_.rows() : tile_.columns(); }
  int64_t others() const { return kToRows ? tile_.columns() : tile_.rows(); }
  T* sum_of(int64_t k) const {
    const Workspace& work = tile_.work;
    const LabelledRow& row = kToRows ? work.row_order[tile_.row0() + k] : work.col_order[tile_.col0() + k];
    return to_.sums + row.index * tile_.plan.dim + to_.from;
  }
  const T* unit_of_other(int64_t k) const {
    return kToRows ? tile_.unit_column(k, to_.from) : tile_.unit_row(k, to_.from);
  }

  void add_list() const {
    for (int64_t i = 0; i < tile_.rows(); ++i) {
      for (int64_t w = 0; w < tile_.words(); ++w) {
        for_each_bit(tile_.word(i, w, positive_), w * 64, [&](int64_t j) {
          loops_.add(sum_of(kToRows ? i : j), unit_of_other(kToRows ? j : i), to_.width);
        });
      }
    }
  }

  void add_full_minus_list() const {
    const Workspace& work = tile_.work;
    const int64_t words = gather_pattern<kToRows>(tile_, positive_, pattern_);
    const double* all = (kToRows ? work.packed_columns.block_sum + tile_.b * tile_.plan.dim
                                 : work.packed_rows.block_sum + tile_.a * tile_.plan.dim) +
                        to_.from;
    for (int64_t k = 0; k < to_.width; ++k) product_[k] = static_cast<T>(all[k]);
    const RowSpan whole{0, others(), 0, 0};
    for (int64_t i = 0; i < own(); ++i) {
      const uint64_t* bits = pattern_ + i * words;
      int64_t hard = 0;
      for (int64_t w = 0; w < words; ++w) hard += __builtin_popcountll(bits[w]);
      // A row with fewer than half of its bits set is added as a list: an empty sum must be exactly 0.
      const bool full = 2 * hard >= others();
      if (full) loops_.add(sum_of(i), product_, to_.width);
      for (int64_t w = 0; w < words; ++w) {
        for_each_bit(full ? ~bits[w] & whole.pair_bits(w) : bits[w], w * 64, [&](int64_t k) {
          (full ? loops_.subtract : loops_.add)(sum_of(i), unit_of_other(k), to_.width);
        });
      }
    }
  }

  // Returns Σ s over the hard pairs, the part of these columns of D, where it is asked for.
  double add_pattern(bool needs_similarities) const {
    const int64_t stride = ceil_div(to_.width, kPatternPanel) * kPatternPanel;
    const int64_t words = gather_pattern<kToRows>(tile_, positive_, pattern_);
    loops_.pattern_product(pattern_, words, own(), unit_of_other(0), tile_.plan.dim, others(), to_.width,
                           scratch_, product_, stride);
    double similarities = 0;
    for (int64_t i = 0; i < own(); ++i) {
      const T* row = product_ + i * stride;
      if (needs_similarities) similarities += double(loops_.dot(tile_.unit_row(i, to_.from), row, to_.width));
      loops_.add(sum_of(i), row, to_.width);
    }
    return similarities;
  }

  const TileView<T>& tile_;
  const bool positive_;
  const Target<T> to_;
  T* const product_;
  T* const scratch_;
  uint64_t* const pattern_;
  const Simd<T>& loops_ = simd<T>();
};

// Adds the deferred sums of similarities, over the chunks of D, to the sums of the tile.
template <class T>
void collect_deferred(const TileView<T>& tile) {
  TileSums& sums = tile.work.tile_sums[tile.super.slot(tile.a, tile.b)];
  for (int64_t chunk = 0; chunk < tile.plan.chunks(); ++chunk) {
    if (sums.positive.deferred) sums.positive.similarity_sum += tile.deferred(chunk)[0];
    if (sums.negative.deferred) sums.negative.similarity_sum += tile.deferred(chunk)[1];
  }
}

}  // namespace

template <class T>
void accumulate(const Plan& plan, const SuperTile& super, const Workspace& work, PartnerSums<T> of_rows,
                PartnerSums<T> of_columns) {
  // Tasks: (block, chunk of D, sign), first the blocks of rows, then the blocks of columns. In a super-tile
  // on the diagonal both are the same rows, so one task takes the tiles of a block in both directions.
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
        TileAccumulation<false, T>(tile(a, block), positive, target(of_rows)).run();
      }
      for (int64_t b = both ? block : 0; b < super.col_count; ++b) {
        TileAccumulation<true, T>(tile(block, b), positive, target(of_rows)).run();
      }
    } else {
      for (int64_t a = 0; a < super.row_count; ++a) {
        TileAccumulation<false, T>(tile(a, block - row_blocks), positive, target(of_columns)).run();
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
