// What is known of the pairs of a super-tile, and how kernels read it.
#pragma once

#include "cuda/device/side.h"

namespace tcm::cuda {

// The bits of a super-tile's pairs, those of its columns the other way round, and its directory. On the
// diagonal both are one, and complete.
struct Decisions {
  uint32_t* row_bits;     // (rows of the super-tile, columns * kTileWords)
  uint32_t* column_bits;  // (columns of the super-tile, rows * kTileWords), or null where nobody asks
  uint32_t* directory;    // (tiles of rows, tiles of columns)
};

// What screening has found so far, by which every later kernel sees whether there is anything for it.
struct ScreenState {
  const int* samples;   // (kSamples,) candidates of two classes in each sampled tile
  int* has_dense_tile;  // not 0 where a tile of the super-tile has more candidates than a list
  int max_candidates;   // that the sample may have for the sweep to run
  int list_most;        // so many pairs of a tile are taken one by one
  bool screened;
};

constexpr int kSamples = 32;

// Partial sums, an element a block: penalties by sign, and numbers of hard pairs.
struct Partial {
  double* sums;     // (blocks, 2)
  int64_t* counts;  // (blocks, 2)
};

// One side of a super-tile, as the other sees it: which rows are added to, and which are added.
struct Direction {
  int own_tile, own_tiles;  // first tile and number of tiles
  int other_tile, other_tiles;
  uint32_t* bits;             // (own rows, words)
  const uint32_t* directory;  // entry of tiles (own, other) at own * own_stride + other * other_stride
  int own_stride, other_stride;

  TCM_HOST_DEVICE int words() const { return other_tiles * kTileWords; }
  TCM_HOST_DEVICE uint32_t entry(int own, int other) const {
    return directory[int64_t{own} * own_stride + int64_t{other} * other_stride];
  }
};

}  // namespace tcm::cuda
