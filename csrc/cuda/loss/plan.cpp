#include "plan.h"

#include <algorithm>
#include <cmath>

#include "common/certificate.h"
#include "kernels.h"

namespace tcm::cuda {
namespace {

// In pairs. Below, the sweep saves less than its launches cost. Not yet measured.
constexpr int64_t kScreenFrom = int64_t{2048} * 2048;
constexpr int kFewestTiles = 2, kMostTiles = 1024;  // along a super-tile, whatever the pool
constexpr int kProgramsPerMultiprocessor = 2;
constexpr int64_t kAlignment = 256;

// Tiles along the edge of a super-tile: as many as the pool has two bits per pair for.
int edge_of(int64_t pool_bytes) {
  const auto rows = static_cast<int64_t>(std::sqrt(4.0 * static_cast<double>(pool_bytes)));
  return static_cast<int>(std::clamp<int64_t>(rows / kTile, kFewestTiles, kMostTiles));
}

std::vector<SuperTile> super_tiles(int row_tiles, int column_tiles, int edge, bool is_self) {
  std::vector<SuperTile> parts;
  for (int i = 0; i < row_tiles; i += edge) {
    for (int j = is_self ? i : 0; j < column_tiles; j += edge) {
      parts.push_back(
          {i, std::min(edge, row_tiles - i), j, std::min(edge, column_tiles - j), is_self && i == j});
    }
  }
  return parts;
}

// Hands out aligned arrays of a block of memory.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += ceil_div(count * static_cast<int64_t>(sizeof(T)), kAlignment) * kAlignment;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

Workspace::OfSide carve_side(Carver& carver, int64_t n, int64_t code_dim) {
  Workspace::OfSide side{};
  side.same_begin = carver.take<int32_t>(n);
  side.same_end = carver.take<int32_t>(n);
  side.inverse = carver.take<float>(n);
  if (code_dim > 0) {
    side.own_scale = carver.take<float>(n);
    side.code = carver.take<int8_t>(tiles_of(n) * kTile * code_dim);
    side.error = carver.take<float>(tiles_of(n) * kTile);
    side.scale = carver.take<float>(tiles_of(n));
  }
  return side;
}

}  // namespace

Plan Plan::make(int64_t rows, int64_t columns, int64_t dim, bool is_self, bool need_columns,
                const Choices& choices, int multiprocessors) {
  Plan plan{};
  plan.rows = rows;
  plan.columns = columns;
  plan.dim = static_cast<int>(dim);
  plan.is_self = is_self;
  const bool worth_it = choices.screening == Choices::automatic ? rows * columns >= kScreenFrom
                                                                : choices.screening == Choices::int8;
  plan.screened = worth_it && dim > 0 && dim <= kLargestScreenedDim && rows > 0 && columns > 0;
  plan.code_dim = plan.screened ? static_cast<int>(ceil_div(dim, kCodeStep)) * kCodeStep : 0;
  plan.edge = edge_of(choices.pool_bytes);
  const int row_tiles = static_cast<int>(tiles_of(rows)), column_tiles = static_cast<int>(tiles_of(columns));
  plan.parts = super_tiles(row_tiles, column_tiles, plan.edge, is_self);
  plan.by_column = need_columns && !(is_self && plan.parts.size() == 1);
  const int64_t tiles = int64_t{std::min(plan.edge, row_tiles)} * std::min(plan.edge, column_tiles);
  plan.programs = std::clamp<int64_t>(tiles, 1, int64_t{kProgramsPerMultiprocessor} * multiprocessors);
  plan.partials = plan.programs + list_blocks(int64_t{std::min(plan.edge, row_tiles)} * kTile);
  return plan;
}

int64_t Workspace::carve(const Plan& plan, void* base) {
  Carver carver(base);
  samples = carver.take<int>(kSamples);
  has_dense_tile = carver.take<int>(static_cast<int64_t>(plan.parts.size()));
  not_finite = carver.take<int>(1);
  partial = {carver.take<double>(2 * plan.partials), carver.take<int64_t>(2 * plan.partials)};
  zeroed = carver.bytes();

  of_rows = of_columns = carve_side(carver, plan.rows, plan.code_dim);
  if (!plan.is_self) of_columns = carve_side(carver, plan.columns, plan.code_dim);
  const int64_t r = std::min<int64_t>(plan.edge, tiles_of(plan.rows));
  const int64_t c = std::min<int64_t>(plan.edge, tiles_of(plan.columns));
  directory = carver.take<uint32_t>(r * c);
  row_bits = carver.take<uint32_t>(r * c * kTile * kTileWords);
  column_bits = plan.by_column ? carver.take<uint32_t>(r * c * kTile * kTileWords) : nullptr;
  block_sums = carver.take<float>(std::max(r, c) * plan.dim);
  return carver.bytes();
}

}  // namespace tcm::cuda
