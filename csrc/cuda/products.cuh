// Products of the rows of a tile with those of its columns, 128 x 128 at a time, on matrix units.
//
// Four warps have 64 x 64 products each. Rows pass through shared memory 64 bytes at a time, in four buffers
// filled by asynchronous copies, which run on over the end of a tile into the next: a block never waits for
// the first rows of a tile but once. Whatever the elements, a product is 16 x 8 x 32 bytes, so one scheme
// serves all of them. Two rows share a line of 128 bytes in shared memory, its 16-byte chunks exchanged so
// that copies write, and ldmatrix reads, every bank once.
#pragma once

#include "rows.cuh"

namespace tcm::cuda {

constexpr int kTileThreads = 128;
constexpr int kStepBytes = 64;  // of every row, at a time
constexpr int kRowChunks = kStepBytes / kChunk;
constexpr int kSideBytes = kTile * kStepBytes;
constexpr int kStageBytes = 2 * kSideBytes;

// Shared memory of a block: what it needs itself, then the buffers, from a multiple of 128 on.
constexpr int buffers_offset(int head_bytes) { return (head_bytes + 127) / 128 * 128; }
constexpr int shared_bytes(int head_bytes, int stages) {
  return buffers_offset(head_bytes) + stages * kStageBytes;
}

constexpr int kWarpTile = 64;  // edge of a warp's part
constexpr int kFragmentRows = kWarpTile / 16;
constexpr int kFragmentColumns = kWarpTile / 8;

// Byte of chunk `chunk` of row `row` of a side within a stage.
TCM_DEVICE int swizzled(int row, int chunk) {
  const int line = row / 2;
  return line * 128 + ((row % 2) * kRowChunks + (chunk ^ (line % kRowChunks))) * kChunk;
}

// How elements are multiplied: what a thread keeps of them, and what it adds to its products.
template <class Type, class Sum>
struct PlainProduct {
  using Acc = Sum;
  static constexpr int kUnroll = 2;  // steps of 32 bytes that are laid out together
  struct A {
    uint32_t word[4];
  };
  struct B {
    uint32_t word[2];
  };
  TCM_DEVICE static A a(const uint32_t (&x)[4]) { return {{x[0], x[1], x[2], x[3]}}; }
  TCM_DEVICE static B b(const uint32_t* x) { return {{x[0], x[1]}}; }
  TCM_DEVICE static void add(Acc (&acc)[4], const A& a, const B& b) {
    multiply_add(Type(), acc, a.word, b.word);
  }
};

using Int8Product = PlainProduct<Int8, int32_t>;
using BFloat16Product = PlainProduct<BFloat16, float>;
using HalfProduct = PlainProduct<Half, float>;

// Float32 as TF32, for those who ask for no more.
struct Tf32Product : PlainProduct<Tf32, float> {
  TCM_DEVICE static A a(const uint32_t (&x)[4]) {
    A out;
#pragma unroll
    for (int i = 0; i < 4; ++i) out.word[i] = round_to_tf32(float_of(x[i]));
    return out;
  }
  TCM_DEVICE static B b(const uint32_t* x) {
    return {{round_to_tf32(float_of(x[0])), round_to_tf32(float_of(x[1]))}};
  }
};

// Float32 in two parts of TF32 with 22 bits together; the product of the lower parts is left out. The units
// cut their sums off instead of rounding them, so they only add up 8 terms: the rest is added as float32.
struct Float32Product {
  using Acc = float;
  static constexpr int kUnroll = 1;
  struct A {
    uint32_t high[4], low[4];
  };
  struct B {
    uint32_t high[2], low[2];
  };
  TCM_DEVICE static A a(const uint32_t (&x)[4]) {
    A out;
#pragma unroll
    for (int i = 0; i < 4; ++i) split(x[i], out.high[i], out.low[i]);
    return out;
  }
  TCM_DEVICE static B b(const uint32_t* x) {
    B out;
#pragma unroll
    for (int i = 0; i < 2; ++i) split(x[i], out.high[i], out.low[i]);
    return out;
  }
  TCM_DEVICE static void add(Acc (&acc)[4], const A& a, const B& b) {
    float sum[4] = {};
    multiply_add(Tf32(), sum, a.low, b.high);
    multiply_add(Tf32(), sum, a.high, b.low);
    multiply_add(Tf32(), sum, a.high, b.high);
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[e] += sum[e];
  }

 private:
  TCM_DEVICE static void split(uint32_t x, uint32_t& high, uint32_t& low) {
    high = round_to_tf32(float_of(x));
    low = round_to_tf32(float_of(x) - float_of(high));
  }
};

// The products of a thread: of its warp's part of a tile, fragment (i, j) of 16 rows and 8 columns, element
// e.
template <class Acc>
struct Products {
  Acc value[kFragmentRows][kFragmentColumns][4];

  TCM_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
#pragma unroll
      for (int j = 0; j < kFragmentColumns; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) value[i][j][e] = Acc{};
      }
    }
  }

  // Where in the tile they stand: (i, e / 2) gives the row, (j, e % 2) the column.
  TCM_DEVICE static int first_row() { return warp_index() / 2 * kWarpTile; }
  TCM_DEVICE static int first_column() { return warp_index() % 2 * kWarpTile; }
  TCM_DEVICE static int row(int i, int half) { return first_row() + i * 16 + half * 8 + lane_index() / 4; }
  TCM_DEVICE static int column(int j, int odd) { return first_column() + j * 8 + lane_index() % 4 * 2 + odd; }
};

// The rows of a side that products are made of: codes, which lie in label order, or embeddings, which are
// found through it. Row numbers of the tile that is being copied then stand in shared memory, of two tiles by
// turns.
struct CodeRows {
  static constexpr int kElement = 1;
  const Side& side;
  const Shape& shape;

  TCM_DEVICE CodeRows(const Side& of, const Shape& in) : side(of), shape(in) {}
  TCM_DEVICE const char* data() const { return reinterpret_cast<const char*>(side.code); }
  TCM_DEVICE int bytes() const { return shape.code_dim; }
  TCM_DEVICE int granule() const { return kChunk; }
  TCM_DEVICE void begin_tile(int, int, int) const {}
  TCM_DEVICE int row(int, int first, int r) const { return first + r < side.n ? first + r : -1; }
};

template <class T>
struct EmbeddingRows {
  static constexpr int kElement = static_cast<int>(sizeof(T));
  const Side& side;
  const Shape& shape;
  SharedArray<int> rows;  // (2, kTile)

  TCM_DEVICE EmbeddingRows(const Side& of, const Shape& in, int offset)
      : side(of), shape(in), rows(shared_memory<int>(offset)) {}
  TCM_DEVICE const char* data() const { return static_cast<const char*>(side.x); }
  TCM_DEVICE int bytes() const { return shape.dim * kElement; }
  TCM_DEVICE int granule() const { return shape.granule; }
  // To be followed by a barrier.
  TCM_DEVICE void begin_tile(int turn, int first, int r) const {
    rows[turn * kTile + r] = first + r < side.n ? static_cast<int>(side.order[first + r]) : -1;
  }
  TCM_DEVICE int row(int turn, int, int r) const { return rows[turn * kTile + r]; }
};
constexpr int kRowNumberBytes = 2 * kTile * static_cast<int>(sizeof(int));

template <int kElement>
TCM_DEVICE uint32_t load_element(const char* from) {
  if constexpr (kElement == 4) return *reinterpret_cast<const uint32_t*>(from);
  if constexpr (kElement == 2) return *reinterpret_cast<const uint16_t*>(from);
  return *reinterpret_cast<const uint8_t*>(from);
}

// copy_async for rows that begin anywhere: element by element, `bytes` of them at most.
template <int kElement>
TCM_DEVICE void copy_elements(SharedArray<char> shared, int to, const char* from, int bytes) {
  const SharedArray<uint32_t> words{reinterpret_cast<uint32_t*>(shared.data + to)};
#pragma unroll 1
  for (int w = 0; w < kChunk / 4; ++w) {
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; b += kElement) {
      if (4 * w + b < bytes) word |= load_element<kElement>(from + 4 * w + b) << (8 * b);
    }
    words[w] = word;
  }
}

// Copies a step of the rows of a tile: each thread one chunk of four of them.
template <class Rows>
TCM_DEVICE void copy_rows(const Rows& rows, int turn, int first, int step, SharedArray<char> shared, int to) {
  constexpr int kApart = kTileThreads / kRowChunks;
  const int chunk = thread_index() % kRowChunks, first_row = thread_index() / kRowChunks;
  const int at = step * kStepBytes + chunk * kChunk, left = rows.bytes() - at;
  to += swizzled(first_row, chunk);  // rows that are kApart apart are exchanged alike
#pragma unroll
  for (int i = 0; i < kTile / kApart; ++i) {
    const int row = rows.row(turn, first, first_row + i * kApart), target = to + i * kApart * kStepBytes;
    const int bytes = row >= 0 && left > 0 ? left : 0;
    const char* from = rows.data() + (bytes > 0 ? int64_t{row} * rows.bytes() + at : 0);
    if (rows.granule() == kChunk) {
      copy_async<kChunk>(shared, target, from, bytes > 0);
    } else if (rows.granule() == 4) {
#pragma unroll
      for (int b = 0; b < kChunk; b += 4)
        copy_async<4>(shared, target + b, b < bytes ? from + b : from, b < bytes);
    } else {
      copy_elements<Rows::kElement>(shared, target, from, bytes);
    }
  }
}

// One of the buffers: products of 64 bytes of 128 rows and columns.
template <class Product>
TCM_DEVICE void add_stage(Products<typename Product::Acc>& acc, SharedArray<char> shared, int rows) {
  const int lane = lane_index(), columns = rows + kSideBytes;
#pragma unroll(Product::kUnroll)
  for (int k = 0; k < kRowChunks; k += 2) {
    typename Product::A a[kFragmentRows];
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
      uint32_t words[4];
      load_matrices(words, shared, rows + swizzled(acc.first_row() + i * 16 + lane % 16, k + lane / 16));
      a[i] = Product::a(words);
    }
#pragma unroll
    for (int j = 0; j < kFragmentColumns; j += 2) {
      uint32_t words[4];
      const int column = acc.first_column() + j * 8 + lane / 16 * 8 + lane % 8;
      load_matrices(words, shared, columns + swizzled(column, k + lane / 8 % 2));
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const typename Product::B b = Product::b(words + 2 * odd);
#pragma unroll
        for (int i = 0; i < kFragmentRows; ++i) Product::add(acc.value[i][j + odd], a[i], b);
      }
    }
  }
}

// Visits every `step`-th tile of a super-tile from number `first` on: `work` says which it wants, is told
// where one begins (a barrier comes before its end) and gets its products. Needs kPipelineBytes of shared
// memory.
template <class Product, class Rows, class Work>
TCM_DEVICE void for_each_tile(const SuperTile& part, int first, int step, const Rows& rows,
                              const Rows& columns, int stages, int buffers, Work& work) {
  const SharedArray<char> shared = shared_memory<char>(buffers);
  TileWalk tile(part, first, step);
  const auto next_wanted = [&](TileWalk& walk) {
    while (!walk.done(part) && !work.wants(walk.place(part))) walk.advance(part, step);
  };
  next_wanted(tile);

  TileWalk copied = tile;  // as far as copies have been asked for
  const int steps = rows.bytes() > 0 ? (rows.bytes() + kStepBytes - 1) / kStepBytes : 1;
  int copied_step = 0, turn = 0, first_row = 0, first_column = 0;
  const auto begin_copies = [&] {
    if (copied.done(part)) return;
    const TilePlace at = copied.place(part);
    first_row = (part.row + at.row) * kTile;
    first_column = (part.column + at.column) * kTile;
    rows.begin_tile(turn, first_row, thread_index());
    columns.begin_tile(turn, first_column, thread_index());
  };
  // Comes after a barrier, since which row numbers of the tile stand in shared memory.
  const auto copy_next = [&](int stage) {
    if (!copied.done(part)) {
      copy_rows(rows, turn, first_row, copied_step, shared, stage * kStageBytes);
      copy_rows(columns, turn, first_column, copied_step, shared, stage * kStageBytes + kSideBytes);
      if (++copied_step == steps) {
        copied_step = 0;
        turn ^= 1;
        copied.advance(part, step);
        next_wanted(copied);
        begin_copies();
      }
    }
    commit_copies();  // empty ones too, so that the number of groups tells which have ended
  };

  begin_copies();
  for (int stage = 0; stage < stages - 1; ++stage) {
    sync_block();
    copy_next(stage);
  }
  int stage = 0;
  Products<typename Product::Acc> acc;
  for (; !tile.done(part); tile.advance(part, step), next_wanted(tile)) {
    acc.clear();
    for (int k = 0; k < steps; ++k) {
      if (stages == kMostStages) {
        wait_copies<kMostStages - 2>();
      } else {
        wait_copies<kFewestStages - 2>();
      }
      sync_block();  // this stage has come, and nobody reads the one before any more
      if (k == 0) work.begin(tile.place(part));
      copy_next(stage == 0 ? stages - 1 : stage - 1);
      add_stage<Product>(acc, shared, stage * kStageBytes);
      stage = stage + 1 == stages ? 0 : stage + 1;
    }
    sync_block();
    work.end(tile.place(part), acc);
  }
  wait_copies<0>();
}

}  // namespace tcm::cuda
