// How a call is cut into tiles, and where its working memory lies. Everything here follows from shapes
// and the number of threads, never from data.
#pragma once

#include <cstdint>

#include "cpu/simd/simd.h"

namespace tcm::cpu {

// One pair in so many. Up to there, open pairs of a tile get an inner product each; above it the tile is
// multiplied as a whole. Measured on a Xeon with AVX-512 at D = 512: an inner product takes four to five
// times a pair's share of a float32 product (and 20 times its share of an int8 product).
constexpr int64_t kOpenFrom = 8;
// Up to there, hard (or not hard) pairs of a tile are listed and their rows added one by one; above it the
// unit rows are multiplied with the pattern of bits. Same machine, one pair in 22: 0.34 against 0.55 U.
constexpr int64_t kListFrom = 16;
constexpr int64_t kLargestTile = 512;  // 1 MiB of float32 similarities: what a core's L2 cache holds

// What rows are coded in for screening; see coding.h.
struct Coding {
  enum Kind { none, int8, bfloat16 } kind;
  int limit;  // largest |q| of int8
};

// A sample's place after sorting by label.
struct LabelledRow {
  int64_t label;
  int64_t index;  // original row
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
  int64_t chunk;        // columns of P and Q that one task of the adding up covers
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
  int64_t class_code_bytes() const { return codes() ? code_bytes() : dim * element; }
  int64_t words() const { return tile / 64; }  // of one tile row's bit map
  int64_t chunks() const { return (dim + chunk - 1) / chunk; }
  int64_t tile_elements() const;  // of a thread's scratch for one tile
  int64_t super_rows() const { return super_tiles * tile; }
};

// Rows of one class within a block that share a code; see classes.h.
struct ClassCodes {
  int32_t* count;  // (super_tiles) of the block's classes; 0 if they are too many for this to pay
  int32_t* begin;  // (super_tiles, most_classes + 1) first row of each class within its block, and the end
  void* code;      // (super_tiles, most_classes, D) codes, or without those rows of the compute dtype
  float* scale;    // (super_tiles, most_classes)
  float* error;    // (super_tiles, most_classes)
  float* tail;     // (super_tiles, most_classes)
};

// One side of a super-tile, packed in label order. Blocks are the rows of one tile.
struct PackedRows {
  void* unit;         // (super_rows, D) unit rows, compute dtype
  double* block_sum;  // (super_tiles, D) sum of a block's unit rows
  void* code;         // (super_rows, code_dim) with plan.codes(), else none
  float* scale;       // (super_rows) of the codes
  float* error;       // (super_rows)
  float* tail;        // (super_rows) length of the unit row's columns beyond the screening's prefix
  ClassCodes classes;
};

// How tiles are screened; see sample.h.
struct Screening {
  bool codes;      // by products of the rows' codes
  bool classes;    // before that, by products of the classes' codes
  int64_t prefix;  // what comes first takes so many columns

  bool has_prefix(const Plan& plan) const { return prefix < plan.dim; }
};

// Pointers into one allocation. `carve` with a null base measures: the return value is its size.
struct Workspace {
  LabelledRow* row_order;  // (N) rows of emb, sorted by label
  LabelledRow* col_order;  // (M) the same for the reference set; row_order itself in the self case
  int64_t* same_begin;     // (N) sorted columns [same_begin, same_end) have the row's label
  int64_t* same_end;
  int64_t* twin;      // (N) the sorted column that is the row's own sample, -1 if none
  int64_t* position;  // (M) where each reference row stands after sorting
  PackedRows packed_rows;
  PackedRows packed_columns;  // the same memory as packed_rows where both sides are one
  uint64_t* bits;             // (super_tiles², tile, words) hard pairs
  TileSums* tile_sums;        // (super_tiles²)
  double* deferred;           // (super_tiles², chunks, 2) sums of similarities found while adding up
  // Per thread: a tile of similarities or of products of codes, or a pattern's tables; and rows to be added.
  void* scratch;

  int64_t carve(const Plan& plan, void* base);

  template <class T>
  T* tile_scratch(const Plan& plan, int64_t worker) const {
    return static_cast<T*>(scratch) + worker * scratch_elements(plan);
  }
  template <class T>
  T* row_scratch(const Plan& plan, int64_t worker) const {
    return tile_scratch<T>(plan, worker) + plan.tile_elements();
  }
  static int64_t scratch_elements(const Plan& plan);
};

}  // namespace tcm::cpu
