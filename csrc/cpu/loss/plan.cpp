#include "plan.h"

#include <algorithm>

#include "common/ceil_div.h"
#include "common/certificate.h"
#include "cpu/simd/simd.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kSmallestTile = 64;
constexpr int64_t kSuperRows = 8192;                 // 256 tiles of 512: 8 MiB of bit maps
constexpr int64_t kPackedBytes = int64_t(16) << 20;  // bound on the unit rows of each side, for wide rows
constexpr int64_t kTasksPerThread = 8;               // so that uneven tasks balance
// Below these, screening saves less than it costs.
constexpr int64_t kSmallestScreenedTile = 128;
constexpr int64_t kSmallestScreenedDim = 32;

int64_t tile_count(int64_t rows, int64_t columns, bool self, int64_t tile) {
  const int64_t m = ceil_div(rows, tile), n = ceil_div(columns, tile);
  return self ? m * (m + 1) / 2 : m * n;
}

}  // namespace

Plan Plan::make(int64_t rows, int64_t columns, int64_t dim, bool self, int64_t element, int64_t threads,
                Coding coding) {
  Plan plan{rows,         columns, dim, self,  element, std::max<int64_t>(threads, 1),
            kLargestTile, 1,       0,   false, coding,  0};
  while (plan.tile > kSmallestTile &&
         tile_count(rows, columns, self, plan.tile) < kTasksPerThread * plan.threads) {
    plan.tile /= 2;
  }
  const int64_t affordable = kPackedBytes / std::max<int64_t>(dim * element, 1);
  const int64_t needed = ceil_div(std::max(rows, columns), plan.tile);
  plan.super_edge =
      std::clamp(std::min(affordable, kSuperRows) / plan.tile, int64_t(1), std::max<int64_t>(needed, 1));
  // A task of `accumulate` is a block and a sign; where these are few, each is divided along D.
  const int64_t blocks = std::max<int64_t>(std::min(needed, plan.super_edge), 1);
  const int64_t cuts = ceil_div(kTasksPerThread * plan.threads, 2 * blocks);
  plan.chunk =
      std::clamp(ceil_div(ceil_div(std::max<int64_t>(dim, 1), cuts), 64) * 64, int64_t(64), int64_t(512));
  plan.screens = plan.tile >= kSmallestScreenedTile && dim >= kSmallestScreenedDim && dim <= kLargestDim;
  if (!plan.screens) plan.coding = {Coding::none, 0};
  plan.code_dim = plan.codes() ? ceil_div(dim, 64) * 64 : 0;
  return plan;
}

int64_t Plan::tile_elements() const {
  const int64_t similarities = tile * tile + 64;  // or int32 products; reads go up to 64 past the end
  const int64_t pattern =
      kPatternScratch + tile * kPatternPanel + tile * words() * int64_t(sizeof(uint64_t)) / element;
  return std::max(similarities, pattern);
}

}  // namespace tcm::cpu
