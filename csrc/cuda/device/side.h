// The two sides of the similarity matrix, as passed to kernels.
#pragma once

#include <cstdint>

#include "common/hard_pair.h"
#include "tiles.h"

namespace tcm::cuda {

enum class Dtype { float32, float16, bfloat16 };

// How float32 is multiplied; other dtypes are multiplied as they are.
enum class Precision { highest, lower };

// The margins [m+, m-], which are in device memory.
inline TCM_HOST_DEVICE Margins<double> margins_at(const double* margins) { return {margins[0], margins[1]}; }

// P and Q of a side, by row of the embeddings: sums of the unit rows of each row's hard partners. Null where
// the gradient is not wanted.
struct PartnerSums {
  float* positive;  // (n, dim)
  float* negative;  // (n, dim)
};

// One side. A position is an index in label order. Without screening, own_scale and the codes with their
// errors and scales are null.
struct Side {
  const void* x;              // (n, dim), dense rows
  const int64_t* order;       // (n,) the row of x at each position
  const int64_t* label;       // (n,) by position, ascending; null in the histogram
  const int32_t* self_index;  // (n,) the same sample's position on the other side, or -1; null: its own
  int32_t* same_begin;  // (n,) positions [same_begin, same_end) of the other side are of the row's class
  int32_t* same_end;    // (n,)
  float* inverse;       // (n,) by position, 1 / max(norm, floor); NaN where the norm is not finite
  float* own_scale;     // (n,) by position, the largest |element| of the unit row / 127; 0 if not finite
  int8_t* code;         // (tiles * kTile, code_dim) by position, zeros past the last row
  float* error;         // (tiles * kTile,) by position, rounded up; 0 past the last row
  float* scale;         // (tiles,) of the codes of a tile
  PartnerSums sums;
  int n;

  // The position of the same sample on the other side, or -1.
  TCM_HOST_DEVICE int self_index_of(int position) const {
    return self_index == nullptr ? position : self_index[position];
  }
};

// The embeddings' columns.
struct Shape {
  int dim;
  int code_dim;  // dim up to a multiple of kCodeStep, or 0 where nothing is screened
  int granule;   // bytes: rows begin at multiples of 16, of 4, or of one element

  TCM_HOST_DEVICE bool vectors() const { return granule == 16; }
};

constexpr int kCodeStep = 64;

constexpr int64_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

// The shape, without codes, of rows (n, dim) that begin at x.
inline Shape shape_of(const void* x, int64_t dim, Dtype dtype) {
  const auto bits = reinterpret_cast<uintptr_t>(x) | static_cast<uintptr_t>(dim * bytes_of(dtype));
  return {static_cast<int>(dim), 0, bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : 2};
}

}  // namespace tcm::cuda
