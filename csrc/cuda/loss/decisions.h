// What is known of the pairs of a super-tile, and how kernels read it.
#pragma once

#include "cuda/device/side.h"

namespace tcm::cuda {

// The bits of a super-tile's pairs, by row and by column, and its directory. On the diagonal both kinds of
// bits are one array, which like the directory also has the tiles below the diagonal.
struct Decisions {
  uint32_t* row_bits;     // (rows of the super-tile, columns * kTileWords)
  uint32_t* column_bits;  // (columns of the super-tile, rows * kTileWords), or null where nothing reads them
  uint32_t* directory;    // (tiles of rows, tiles of columns)
};

// What screening has found so far, which tells the later kernels whether they have work.
struct ScreenState {
  const int* samples;   // (kSamples,) candidates of two classes in each sampled tile
  int* has_dense_tile;  // nonzero where a tile of the super-tile has more than list_most candidates
  int max_candidates;   // largest sum of the samples for the sweep to run
  int list_most;        // at most this many pairs of a tile are taken one by one
  bool screened;
};

constexpr int kSamples = 32;

// Partial sums, one element per block: penalties by sign, and numbers of hard pairs.
struct Partial {
  double* sums;     // (blocks, 2)
  int64_t* counts;  // (blocks, 2)
};

// A direction through a super-tile: the own rows' P and Q are added to, the other rows are added.
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
