#include "plan.h"

#include <algorithm>

#include "common/certificate.h"
#include "kernels.h"

namespace tcm::cuda {
namespace {

constexpr int kMostTiles = 1024;  // along a super-tile: their number and their bits stay addressable
constexpr int64_t kAlignment = 256;

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

int Plan::code_dim() const { return screened ? static_cast<int>(ceil_div(dim, kCodeStep)) * kCodeStep : 0; }

int64_t Plan::row_tiles() const { return std::min<int64_t>(edge, tiles_of(rows)); }

int64_t Plan::column_tiles() const { return std::min<int64_t>(edge, tiles_of(columns)); }

int64_t Plan::partials() const { return programs + list_blocks(row_tiles() * kTile); }

const char* Plan::fault() const {
  if (screened && (dim < 1 || dim > kLargestScreenedDim)) return "screened: the columns cannot be";
  if (edge < 1 || edge > kMostTiles) return "edge: out of range";
  if (programs < 1 || programs > int64_t{edge} * edge) return "programs: out of range";
  if (list_most < 0 || list_most > kTile * kTile) return "list_most: out of range";
  if (max_candidates < 0) return "max_candidates: out of range";
  const auto within = [&](int first, int count, int64_t n) {
    return first >= 0 && count >= 1 && count <= edge && int64_t{first} + count <= tiles_of(n);
  };
  for (const SuperTile& part : parts) {
    if (!within(part.row, part.rows, rows) || !within(part.column, part.columns, columns) ||
        (part.diagonal && !(is_self && part.row == part.column && part.rows == part.columns))) {
      return "parts: expected super-tiles within the matrix";
    }
  }
  return nullptr;
}

int64_t Workspace::carve(const Plan& plan, void* base) {
  Carver carver(base);
  samples = carver.take<int>(kSamples);
  has_dense_tile = carver.take<int>(static_cast<int64_t>(plan.parts.size()));
  not_finite = carver.take<int>(1);
  partial = {carver.take<double>(2 * plan.partials()), carver.take<int64_t>(2 * plan.partials())};
  zeroed = carver.bytes();

  of_rows = of_columns = carve_side(carver, plan.rows, plan.code_dim());
  if (!plan.is_self) of_columns = carve_side(carver, plan.columns, plan.code_dim());
  const int64_t r = plan.row_tiles(), c = plan.column_tiles();
  directory = carver.take<uint32_t>(r * c);
  row_bits = carver.take<uint32_t>(r * c * kTile * kTileWords);
  column_bits = plan.by_column ? carver.take<uint32_t>(r * c * kTile * kTileWords) : nullptr;
  block_sums = carver.take<float>(std::max(r, c) * plan.dim);
  return carver.bytes();
}

}  // namespace tcm::cuda
