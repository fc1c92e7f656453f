#include "screen.h"

#include <algorithm>
#include <limits>

#include "cpu/torch_shim.h"
#include "screen_by_centroids.h"
#include "screen_by_codes.h"
#include "tile.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kStrip = 4;  // adjacent tiles that share a product by centroids

// All similarities in full precision, then one pass over each row.
template <class T>
void screen_in_full(const Tile<T>& tile, T* s) {
  const Plan& plan = tile.plan;
  const Matrix<const T> x{tile.unit_rows(), tile.rows, plan.dim, plan.dim};
  const Matrix<const T> r{tile.unit_columns(), tile.columns, plan.dim, plan.dim};
  matmul<T>(x, r.transposed(), {s, tile.rows, tile.columns, plan.tile});
  TileSums sums{};
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* row = s + i * plan.tile;
    if (const int64_t own = tile.self_index(i); own >= 0) {
      row[own] = std::numeric_limits<T>::quiet_NaN();  // never hard
    }
    simd<T>().scan_row(row, tile.span(i), thresholds<T>(tile.margins), tile.bits + i * plan.words(), &sums);
  }
  *tile.sums = sums;
}

}  // namespace

template <class T>
void screen(const Plan& plan, const SuperTile& super, const ScreeningPlan& screening, Margins<double> margins,
            bool can_defer, const Workspace& work) {
  const int64_t strip = screening.by_centroids ? kStrip : 1, strips = (super.col_count + strip - 1) / strip;
  for_each_task(super.row_count * strips, plan.threads, [&](int64_t task, int64_t worker) {
    const int64_t a = task / strips;
    const auto tile_at = [&](int64_t b) {
      const int64_t slot = super.slot(a, b);
      return Tile<T>{plan,
                     work,
                     margins,
                     (super.row_tile + a) * plan.tile,
                     (super.col_tile + b) * plan.tile,
                     block_rows(plan, super, a),
                     block_columns(plan, super, b),
                     a,
                     b,
                     work.bits + slot * plan.tile * plan.words(),
                     work.tile_sums + slot};
    };
    T* scratch = work.tile_scratch<T>(plan, worker);
    const auto screen_tile = [&](const Tile<T>& tile) {
      auto* products = reinterpret_cast<int32_t*>(scratch);
      auto* open = reinterpret_cast<uint64_t*>(work.row_scratch<T>(plan, worker));
      if (screening.codes && screen_by_codes(tile, screening, can_defer, products, open)) return;
      screen_in_full(tile, scratch);
    };
    const int64_t end = std::min(super.col_count, (task % strips + 1) * strip);
    int64_t b = task % strips * strip;
    if (super.diagonal) b = std::max(b, a);
    while (b < end) {
      const int64_t classes = screening.by_centroids ? tile_at(b).classes() : 0;
      if (classes == 0) {
        screen_tile(tile_at(b++));
        continue;
      }
      const int64_t count = std::min(end - b, plan.tile / classes);  // as many tiles as the scratch holds
      const int64_t columns = std::min(count * plan.tile, super.columns(plan) - b * plan.tile);
      multiply_centroids(tile_at(b), screening, columns, scratch);
      uint64_t left = 0;
      for (int64_t k = 0; k < count; ++k) {
        if (!screen_by_centroids(tile_at(b + k), screening, scratch, k * plan.tile, columns)) left |= 1u << k;
      }
      for (int64_t k = 0; k < count; ++k) {
        if (left >> k & 1) screen_tile(tile_at(b + k));
      }
      b += count;
    }
  });
}

template void screen<float>(const Plan&, const SuperTile&, const ScreeningPlan&, Margins<double>, bool,
                            const Workspace&);
template void screen<double>(const Plan&, const SuperTile&, const ScreeningPlan&, Margins<double>, bool,
                             const Workspace&);

}  // namespace tcm::cpu
