// Screens tiles by one product per class: see centroids.h. With int8, undecided pairs of two classes get a
// product of the two rows' own codes each; those not proven harmless, and pairs of one class, get an inner
// product each. A tile with too many undecided pairs is left to the caller.
#include "screen_by_centroids.h"

#include <algorithm>

#include "candidates.h"
#include "cpu/torch_shim.h"
#include "quantize.h"

namespace tcm::cpu {
namespace {

// Marks the undecided pairs in tile.bits, and returns an upper bound of their number. `scan` marks one row,
// given the index and scale of its centroid, the least similarity to be marked, its span and its bits.
template <class T, class Scan>
int64_t mark(const Tile<T>& tile, const ScreeningPlan& screening, float column_error, const Scan& scan) {
  const Plan& plan = tile.plan;
  const Centroids& centroids = tile.work.packed_rows.centroids;
  const int32_t* begin = centroids.begin + tile.row_block * (plan.max_centroids() + 1);
  const bool beyond = screening.has_prefix(plan);
  const double tail = beyond ? *std::max_element(tile.column_tails(), tile.column_tails() + tile.columns) : 0;
  int64_t marked = 0;
  for (int64_t k = 0; k < tile.classes(); ++k) {
    const int64_t at = tile.row_block * plan.max_centroids() + k;
    double reach = tile.margins.minus - double(similarity_error(centroids.error[at], column_error));
    if (beyond) reach -= tail * double(centroids.tail[at]);
    uint64_t* of_class = tile.row_bits(begin[k]);
    const int64_t found = scan(k, centroids.scale[at], reach, tile.span(begin[k]), of_class);
    // The span of the class's first row contains those of its other rows, which differ only at the diagonal.
    // The first row comes last, because the others read its bits.
    for (int64_t i = begin[k + 1] - 1; i >= begin[k]; --i) {
      const RowSpan span = tile.span(i);
      uint64_t* bits = tile.row_bits(i);
      for (int64_t w = 0; w < tile.words(); ++w) bits[w] = found ? of_class[w] & span.pair_bits(w) : 0;
      if (found) tile.clear_self(i);
    }
    marked += found * (begin[k + 1] - begin[k]);
  }
  return marked;
}

}  // namespace

template <class T>
void multiply_centroids(const Tile<T>& first, const ScreeningPlan& screening, int64_t columns,
                        void* products) {
  const Plan& plan = first.plan;
  const char* codes = static_cast<const char*>(first.work.packed_rows.centroids.code) +
                      first.row_block * plan.max_centroids() * plan.centroid_bytes();
  if (plan.codes()) {
    multiply_codes(plan, codes, first.classes(), first.column_codes(), columns,
                   std::min(screening.prefix, plan.code_dim), static_cast<int32_t*>(products));
    return;
  }
  const Matrix<const T> x{reinterpret_cast<const T*>(codes), first.classes(), plan.dim, plan.dim};
  const Matrix<const T> r{first.unit_columns(), columns, plan.dim, plan.dim};
  matmul<T>(x, r.transposed(), {static_cast<T*>(products), first.classes(), columns, columns});
}

template <class T>
bool screen_by_centroids(const Tile<T>& tile, const ScreeningPlan& screening, const void* products,
                         int64_t offset, int64_t stride) {
  int64_t marked;
  if (tile.plan.codes()) {
    const CodeRange range(tile.column_scales(), tile.column_errors(), tile.columns);
    const auto* q = static_cast<const int32_t*>(products) + offset;
    marked = mark(tile, screening, range.largest_error,
                  [&](int64_t k, float scale, double reach, RowSpan span, uint64_t* bits) {
                    return simd<T>().scan_codes(q + k * stride, span, range.threshold(scale, reach), bits);
                  });
  } else {
    const T* s = static_cast<const T*>(products) + offset;
    marked = mark(tile, screening, 0.0f, [&](int64_t k, float, double reach, RowSpan span, uint64_t* bits) {
      return simd<T>().scan_products(s + k * stride, span, static_cast<T>(reach), bits);
    });
  }
  return finish_cheap_product(tile, marked);
}

#define TCM_INSTANTIATE(T)                                                                   \
  template void multiply_centroids<T>(const Tile<T>&, const ScreeningPlan&, int64_t, void*); \
  template bool screen_by_centroids<T>(const Tile<T>&, const ScreeningPlan&, const void*, int64_t, int64_t);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
