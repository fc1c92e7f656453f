// How a call is divided into tiles: by shapes, dtype, machine and number of threads, never by data.
#pragma once

#include <cstdint>

namespace tcm::cpu {

constexpr int64_t kLargestTile = 512;  // 1 MiB of float32 similarities: what a core's L2 cache holds

// The format of the codes of rows; see quantize.h.
struct Coding {
  enum Kind { none, int8, bfloat16 } kind;
  int limit;  // largest |q| of int8
};

// The similarity matrix is divided into square tiles, and these are grouped into super-tiles. A super-tile is
// screened as a whole, one bit per pair, and then accumulated: its packed rows and its bit maps are most of
// the memory that the method needs beside P and Q.
struct Plan {
  int64_t rows;     // N
  int64_t columns;  // M; N in the self case
  int64_t dim;      // D
  bool self;
  int64_t element;  // bytes of the compute dtype
  int64_t threads;
  int64_t tile;        // edge of a tile, a multiple of 64
  int64_t super_edge;  // tiles along the edge of a super-tile
  int64_t chunk;       // columns of P and Q that one task of `accumulate` covers
  bool screens;        // whether tile and D allow screening: codes, probe, centroids
  Coding coding;       // of rows and centroids; none unless `screens`
  int64_t code_dim;    // elements of a code: D rounded up to a multiple of 64, 0 without codes

  // `coding` is that of this machine.
  static Plan make(int64_t rows, int64_t columns, int64_t dim, bool self, int64_t element, int64_t threads,
                   Coding coding);

  int64_t row_tiles() const { return (rows + tile - 1) / tile; }
  int64_t column_tiles() const { return (columns + tile - 1) / tile; }
  int64_t max_centroids() const { return screens ? tile / 2 : 0; }  // of a block
  bool codes() const { return coding.kind != Coding::none; }
  int64_t code_bytes() const { return code_dim * (coding.kind == Coding::bfloat16 ? 2 : 1); }
  int64_t centroid_bytes() const { return codes() ? code_bytes() : dim * element; }
  int64_t words() const { return tile / 64; }  // per tile row of a bit map
  int64_t chunks() const { return (dim + chunk - 1) / chunk; }
  int64_t tile_elements() const;  // of a thread's tile_scratch
  int64_t super_rows() const { return super_edge * tile; }
};

}  // namespace tcm::cpu
