#include "plan.h"

#include <algorithm>

#include "common/ceil_div.h"

namespace tcm::cpu {
namespace {

constexpr int64_t kSmallestTile = 64;
constexpr int64_t kSuperRows = 8192;                 // 256 tiles of 512: 8 MiB of bit maps
constexpr int64_t kPackedBytes = int64_t(16) << 20;  // of each side's packed rows, if rows are wide
constexpr int64_t kTasksPerThread = 8;               // enough for uneven tasks to balance
// Below these a first look saves less than what surrounds it costs.
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
  plan.super_tiles =
      std::clamp(std::min(affordable, kSuperRows) / plan.tile, int64_t(1), std::max<int64_t>(needed, 1));
  // A block of rows and a sign is a task of the adding up; where those are few, each is cut along D.
  const int64_t blocks = std::max<int64_t>(std::min(needed, plan.super_tiles), 1);
  const int64_t cuts = ceil_div(kTasksPerThread * plan.threads, 2 * blocks);
  plan.chunk =
      std::clamp(ceil_div(ceil_div(std::max<int64_t>(dim, 1), cuts), 64) * 64, int64_t(64), int64_t(512));
  plan.screens = plan.tile >= kSmallestScreenedTile && dim >= kSmallestScreenedDim && dim <= kLargestDim;
  if (!plan.screens) plan.coding = {Coding::none, 0};
  plan.code_dim = plan.codes() ? ceil_div(dim, 64) * 64 : 0;
  return plan;
}

int64_t Plan::tile_elements() const {
  const int64_t similarities = tile * tile + 64;  // or int32 products; read up to a word past the end
  const int64_t pattern =
      kPatternScratch + tile * kPatternPanel + tile * words() * int64_t(sizeof(uint64_t)) / element;
  return std::max(similarities, pattern);
}

int64_t Workspace::scratch_elements(const Plan& plan) {
  return plan.tile_elements() + std::max(plan.tile * plan.chunk, ceil_div(plan.dim, 64) * 64);
}

int64_t Workspace::carve(const Plan& plan, void* base) {
  constexpr int64_t kAlign = 64;
  int64_t used = 0;
  const auto take = [&](auto*& pointer, int64_t bytes) {
    using Pointer = std::remove_reference_t<decltype(pointer)>;
    pointer = reinterpret_cast<Pointer>(static_cast<char*>(base) + used);
    used += ceil_div(bytes, kAlign) * kAlign;
  };
  const int64_t super = plan.super_tiles, tile = plan.tile;
  const auto take_packed = [&](PackedRows& packed) {
    take(packed.unit, plan.super_rows() * plan.dim * plan.element);
    take(packed.block_sum, super * plan.dim * int64_t(sizeof(double)));
    take(packed.code, plan.super_rows() * plan.code_bytes());
    take(packed.scale, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    take(packed.error, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    take(packed.tail, plan.codes() ? plan.super_rows() * int64_t(sizeof(float)) : 0);
    const int64_t classes = super * plan.most_classes();
    take(packed.classes.count, plan.screens ? super * int64_t(sizeof(int32_t)) : 0);
    take(packed.classes.begin, plan.screens ? (classes + super) * int64_t(sizeof(int32_t)) : 0);
    take(packed.classes.code, classes * plan.class_code_bytes());
    take(packed.classes.scale, classes * int64_t(sizeof(float)));
    take(packed.classes.error, classes * int64_t(sizeof(float)));
    take(packed.classes.tail, classes * int64_t(sizeof(float)));
  };
  const bool one_side = plan.self && super * tile >= plan.rows;
  take(row_order, plan.rows * int64_t(sizeof(LabelledRow)));
  if (plan.self) {
    col_order = row_order;
  } else {
    take(col_order, plan.columns * int64_t(sizeof(LabelledRow)));
  }
  take(same_begin, plan.rows * 8);
  take(same_end, plan.rows * 8);
  take(twin, plan.rows * 8);
  take(position, plan.columns * 8);
  take_packed(packed_rows);
  if (one_side) {
    packed_columns = packed_rows;
  } else {
    take_packed(packed_columns);
  }
  take(bits, super * super * tile * plan.words() * 8);
  take(tile_sums, super * super * int64_t(sizeof(TileSums)));
  take(deferred, super * super * plan.chunks() * 2 * int64_t(sizeof(double)));
  take(scratch, plan.threads * scratch_elements(plan) * plan.element);
  return used;
}

}  // namespace tcm::cpu
