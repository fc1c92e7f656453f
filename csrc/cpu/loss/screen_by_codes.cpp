// Screens one tile by products of codes. The steps, in the order of the code; each may finish the tile:
//
//   prefix      where the probe chose one without centroids. Up to kMaxUndecidedShare undecided: those of two
//               classes get a product of whole int8 codes each, and all that remain an inner product each
//   candidates  by the product of whole codes; up to kMaxDirectShare get an inner product each
//   bounds      each candidate is harmless, hard or open by its own bound; many open: full precision
//   hard, open  few in all: each gets an inner product, which decides it and is its similarity
//   open        each is decided by an inner product
//   not hard    few: full precision if hard pairs have both signs, else
//               Σ s = (sum of rows)·(sum of columns) - Σ s of the pairs not hard, by inner products
//   otherwise   full precision unless `can_defer`. Σ s of a sign with few hard pairs by inner products; that
//               of a sign with many is left to `accumulate`, which multiplies its pattern in any case
//
// Few means at most Tile::most_open(); full precision, that screen_by_codes returns false.
#include "screen_by_codes.h"

#include <algorithm>

#include "candidates.h"
#include "quantize.h"

namespace tcm::cpu {
namespace {

// Marks the candidates in tile.bits and returns how many there are. `beyond`: whether the products are over a
// prefix; its threshold is lowered by t_i times the largest t_j.
template <class T>
int64_t mark_candidates(const Tile<T>& tile, const CodeRange& range, bool beyond, const int32_t* products) {
  const Simd<T>& loops = simd<T>();
  int64_t candidates = 0;
  const double tail = beyond ? *std::max_element(tile.column_tails(), tile.column_tails() + tile.columns) : 0;
  for (int64_t i = 0; i < tile.rows; ++i) {
    const RowCode code = tile.row_code(i);
    double reach = tile.margins.minus - similarity_error(code.error, range.largest_error);
    if (beyond) reach -= tail * double(tile.row_tail(i));
    uint64_t* bits = tile.row_bits(i);
    candidates +=
        loops.scan_codes(products + i * tile.columns, tile.span(i), range.threshold(code.scale, reach), bits);
    tile.clear_self(i);
  }
  return candidates;
}

// Clears the candidates that are harmless by their own bound, and also marks the open ones in `open`, a
// second bit map. Returns the number of open pairs, or -1 where it exceeds most_open().
template <class T>
int64_t classify_candidates(const Tile<T>& tile, const int32_t* products, uint64_t* open) {
  const float minus = static_cast<float>(tile.margins.minus), plus = static_cast<float>(tile.margins.plus);
  int64_t count = 0;
  for (int64_t i = 0; i < tile.rows; ++i) {
    const RowCode code = tile.row_code(i);
    const RowSpan span = tile.span(i);
    for (int64_t w = 0; w < tile.words(); ++w, ++open) {
      uint64_t& bits = tile.row_bits(i)[w];
      *open = 0;
      if (bits == 0) continue;
      const uint64_t same = span.same_bits(w);
      const auto certify = [&](float margin) {
        return simd<T>().certify(products + i * tile.columns + w * 64, code, tile.column_scales() + w * 64,
                                 tile.column_errors() + w * 64, margin);
      };
      uint64_t may = 0, surely = 0;
      if (bits & ~same) {
        const Certified at_least = certify(minus);
        may = at_least.may & ~same;
        surely = at_least.surely & ~same;
      }
      if (bits & same) {  // a pair of one class is hard unless it is above the margin
        const Certified at_least = certify(plus);
        may |= ~at_least.surely & same;
        surely |= ~at_least.may & same;
      }
      bits &= may;
      *open = bits & ~surely;
      count += __builtin_popcountll(*open);
      if (count > tile.most_open()) return -1;
    }
  }
  return count;
}

// Decides the open pairs by their inner products: clears those that are not hard.
template <class T>
void evaluate_open(const Tile<T>& tile, const uint64_t* open) {
  const Margins<T> margins = thresholds<T>(tile.margins);
  for_each_similarity(
      tile, [&](int64_t i, int64_t w) { return open[i * tile.words() + w]; },
      [&](int64_t i, int64_t j, T s) {
        if (!is_hard(s, tile.span(i).same(j), margins)) tile.clear(i, j);
      });
}

template <class T>
void count_marked(const Tile<T>& tile, TileSums& sums) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    const RowSpan span = tile.span(i);
    for (int64_t w = 0; w < tile.words(); ++w) {
      const uint64_t bits = tile.row_bits(i)[w], same = span.same_bits(w);
      sums.positive.count += __builtin_popcountll(bits & same);
      sums.negative.count += __builtin_popcountll(bits & ~same);
    }
  }
}

// The sum of the similarities of the few marked pairs of one sign.
template <class T>
double sum_of_marked(const Tile<T>& tile, bool positive) {
  double sum = 0;
  for_each_similarity(
      tile,
      [&](int64_t i, int64_t w) {
        const uint64_t same = tile.span(i).same_bits(w);
        return tile.row_bits(i)[w] & (positive ? same : ~same);
      },
      [&](int64_t, int64_t, T s) { sum += double(s); });
  return sum;
}

// The sum of the similarities of all pairs of the tile but the few unmarked ones.
template <class T>
double sum_of_all_but_unmarked(const Tile<T>& tile) {
  const double* x = tile.work.packed_rows.block_sum + tile.row_block * tile.plan.dim;
  const double* r = tile.work.packed_columns.block_sum + tile.col_block * tile.plan.dim;
  double sum = 0;
  for (int64_t k = 0; k < tile.plan.dim; ++k) sum += x[k] * r[k];
  const RowSpan all{0, tile.columns, 0, 0};
  for_each_similarity(
      tile, [&](int64_t i, int64_t w) { return ~tile.row_bits(i)[w] & all.pair_bits(w); },
      [&](int64_t, int64_t, T s) { sum -= double(s); });
  return sum;
}

}  // namespace

template <class T>
bool screen_by_codes(const Tile<T>& tile, const ScreeningPlan& screening, bool can_defer, int32_t* products,
                     uint64_t* open) {
  const Plan& plan = tile.plan;
  const CodeRange range(tile.column_scales(), tile.column_errors(), tile.columns);
  TileSums sums{};
  const auto multiply = [&](int64_t width) {
    multiply_codes(plan, tile.row_codes(), tile.rows, tile.column_codes(), tile.columns, width, products);
  };
  if (screening.has_prefix(plan) && !screening.by_centroids) {
    multiply(screening.prefix);
    if (finish_cheap_product(tile, mark_candidates(tile, range, true, products))) return true;
  }
  multiply(plan.code_dim);
  const int64_t few = tile.most_open(), pairs = tile.rows * tile.columns;
  if (is_at_most(mark_candidates(tile, range, false, products), kMaxDirectShare, pairs)) {
    *tile.sums = evaluate_marked(tile);
    return true;
  }
  if (classify_candidates(tile, products, open) < 0) return false;

  count_marked(tile, sums);
  if (sums.positive.count + sums.negative.count <= few) {
    *tile.sums = evaluate_marked(tile);
    return true;
  }
  evaluate_open(tile, open);
  sums = {};
  count_marked(tile, sums);
  if (pairs - sums.negative.count <= few || pairs - sums.positive.count <= few) {
    if (sums.positive.count && sums.negative.count) return false;  // one sum would mix the two signs
    sums.of(sums.positive.count > 0).similarity_sum = sum_of_all_but_unmarked(tile);
    *tile.sums = sums;
    return true;
  }
  if (!can_defer) return false;
  for (const bool positive : {true, false}) {
    HardPairs& hard = sums.of(positive);
    hard.deferred = hard.count > few;
    if (!hard.deferred) hard.similarity_sum = sum_of_marked(tile, positive);
  }
  *tile.sums = sums;
  return true;
}

template bool screen_by_codes<float>(const Tile<float>&, const ScreeningPlan&, bool, int32_t*, uint64_t*);
template bool screen_by_codes<double>(const Tile<double>&, const ScreeningPlan&, bool, int32_t*, uint64_t*);

}  // namespace tcm::cpu
