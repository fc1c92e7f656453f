// How a call is cut into tiles: from shapes and the number of threads, never from data.
#pragma once

#include <cstdint>

namespace tcm::cpu {

constexpr int64_t kLargestTile = 512;  // 1 MiB of float32 similarities: what a core's L2 cache holds

// What rows are coded in for screening; see quantize.h.
struct Coding {
  enum Kind { none, int8, bfloat16 } kind;
  int limit;  // largest |q| of int8
};

// The similarity matrix is cut into square tiles, and the tiles into super-tiles. A super-tile is
// screened as a whole, one bit a pair, and then added up: its packed unit rows and its bit maps are the
// memory the method needs beside P and Q.
struct Plan {
  int64_t rows;     // N
  int64_t columns;  // M; N in the self case
  int64_t dim;      // D
  bool self;
  int64_t element;  // bytes of the compute dtype
  int64_t threads;
  int64_t tile;         // edge of a tile, a multiple of 64
  int64_t super_tiles;  // tiles along the edge of a super-tile
  int64_t chunk;        // columns of P and Q that one task of `accumulate` covers
  bool screens;         // whether tiles are large enough for a first look to pay
  Coding coding;        // what rows are coded in for it
  int64_t code_dim;     // D rounded up: elements of a row's code

  // `coding` is what this machine can do.
  static Plan make(int64_t rows, int64_t columns, int64_t dim, bool self, int64_t element, int64_t threads,
                   Coding coding);

  int64_t row_tiles() const { return (rows + tile - 1) / tile; }
  int64_t column_tiles() const { return (columns + tile - 1) / tile; }
  int64_t most_classes() const { return screens ? tile / 2 : 0; }  // of a block
  bool codes() const { return coding.kind != Coding::none; }
  int64_t code_bytes() const { return code_dim * (coding.kind == Coding::bfloat16 ? 2 : 1); }
  int64_t centroid_bytes() const { return codes() ? code_bytes() : dim * element; }
  int64_t words() const { return tile / 64; }  // of one tile row's bit map
  int64_t chunks() const { return (dim + chunk - 1) / chunk; }
  int64_t tile_elements() const;  // of a thread's scratch for one tile
  int64_t super_rows() const { return super_tiles * tile; }
};

}  // namespace tcm::cpu
