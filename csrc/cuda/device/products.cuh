// Products of the rows of a tile with those of its columns, 128 x 128 at a time, on matrix units.
//
// Each of four warps has 64 x 64 products. Rows and columns pass through shared memory 64 bytes at a time
// (tile_rows.cuh). Copies run ahead, over the end of a tile into the next, so that a block waits for the
// first bytes of its first tile only. One mma instruction takes 16 rows, 8 columns and 32 bytes of each,
// whatever the elements, so one scheme serves all types. Two rows share a line of 128 bytes in shared memory,
// whose 16-byte chunks are swizzled so that neither copies nor ldmatrix have bank conflicts.
//
// Addresses are computed once per tile, not once per step: a thread keeps the address it copies codes from
// and the two offsets it reads fragments at; the rest are constants in the instructions.
//
// wgmma (sm_90a) would be another Product and another way of reading the buffers, beside add_stage. It is
// left until its gain can be measured on a GPU.
#pragma once

#include "tile_rows.cuh"

namespace tcm::cuda {

constexpr int kWarpTile = 64;  // edge of a warp's part of a tile
constexpr int kFragmentRows = kWarpTile / 16;
constexpr int kFragmentColumns = kWarpTile / 8;

// How elements are multiplied: the fragments A and B that a thread keeps, and their product.
template <class Type, class Sum>
struct PlainProduct {
  using Acc = Sum;
  static constexpr int kUnroll = 2;     // steps of 32 bytes unrolled together
  static constexpr bool kKeeps = true;  // offsets and places, rather than recompute them
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

// Float32 rounded to TF32, for Precision::lower.
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

// Float32 in two parts of TF32 with 22 bits together; the product of the lower parts is left out. Matrix
// units truncate their sums, so they only add up three products of 8 terms; these sums are added in float32.
struct Float32Product {
  using Acc = float;
  static constexpr int kUnroll = 1;
  static constexpr bool kKeeps = false;
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

// The products of a thread: element e of fragment (i, j), 16 rows by 8 columns, of its warp's part of a tile.
template <class Acc>
struct Products {
  Acc value[kFragmentRows][kFragmentColumns][4];

  TCM_DEVICE void clear() {
    begin([](int) { return 0; }, [](int, int) { return Acc{}; });
  }

  // Sets all products of a column to `of(load(j), odd)`.
  template <class Load, class Of>
  TCM_DEVICE void begin(Load load, Of of) {
#pragma unroll
    for (int j = 0; j < kFragmentColumns; ++j) {
      const auto pair = load(j);
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const Acc first = of(pair, odd);
#pragma unroll
        for (int i = 0; i < kFragmentRows; ++i) value[i][j][odd] = value[i][j][2 + odd] = first;
      }
    }
  }

  // Their rows and columns in the tile: (i, e / 2) gives the row, (j, e % 2) the column.
  TCM_DEVICE static int first_row() { return warp_index() / 2 * kWarpTile; }
  TCM_DEVICE static int first_column() { return warp_index() % 2 * kWarpTile; }
  TCM_DEVICE static int row(int i, int half) { return first_row() + i * 16 + half * 8 + lane_index() / 4; }
  TCM_DEVICE static int column(int j, int odd) { return first_column() + j * 8 + lane_index() % 4 * 2 + odd; }
};

// Adds the products of what one buffer holds: 64 bytes of 128 rows, from byte `rows` on, and of 128 columns.
template <class Product>
TCM_DEVICE void add_stage(Products<typename Product::Acc>& acc, SharedArray<char> shared, int rows) {
  const int lane = lane_index();
  // Rows 16 apart are 16 * kStepBytes apart and swizzled alike, and for even k the offset of chunk k + c is
  // that of chunk c XOR k * kChunk. So a lane needs two offsets only, the same within every buffer.
  const auto place_of_row = [&](int k) {
    return rows + swizzled(acc.first_row() + lane % 16, k + lane / 16);
  };
  const auto place_of_column = [&](int k) {
    return rows + kSideBytes + swizzled(acc.first_column() + lane / 16 * 8 + lane % 8, k + lane / 8 % 2);
  };
  const int row_at = place_of_row(0), column_at = place_of_column(0);
#pragma unroll(Product::kUnroll)
  for (int k = 0; k < kRowChunks; k += 2) {
    const int row = Product::kKeeps ? row_at ^ (k * kChunk) : place_of_row(k);
    const int column = Product::kKeeps ? column_at ^ (k * kChunk) : place_of_column(k);
    typename Product::A a[kFragmentRows];
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
      uint32_t words[4];
      load_matrices(words, shared, row + i * 16 * kStepBytes);
      a[i] = Product::a(words);
    }
#pragma unroll
    for (int j = 0; j < kFragmentColumns; j += 2) {
      uint32_t words[4];
      load_matrices(words, shared, column + j * 8 * kStepBytes);
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const typename Product::B b = Product::b(words + 2 * odd);
#pragma unroll
        for (int i = 0; i < kFragmentRows; ++i) Product::add(acc.value[i][j + odd], a[i], b);
      }
    }
  }
}

// Visits every `step`-th tile of a super-tile from number `first` on. `work.wants` chooses tiles. `work.ask`,
// called when the copies of a tile begin, copies what else is needed of it, into a slot per buffer.
// `work.begin` is called between two barriers when the tile's products begin; `work.start`, where
// kBeginsSomewhere, sets their initial values, which are 0 otherwise. `work.end` gets the products.
template <class Product, class Rows, class Work>
TCM_DEVICE void for_each_tile(const SuperTile& part, int first, int step, Rows rows, Rows columns, int stages,
                              int buffers, Work& work) {
  const SharedArray<char> shared = shared_memory<char>(buffers);
  TileWalk tile(part, first, step);
  const auto next_wanted = [&](TileWalk& walk) {
    while (!walk.done(part) && !work.wants(walk.place(part))) walk.advance(part, step);
  };
  next_wanted(tile);

  TileWalk copied = tile;  // the tile being copied
  const int steps = max(static_cast<int>(ceil_div(rows.bytes(), kStepBytes)), 1);
  int copied_step = 0, turn = 0, first_row = 0, first_column = 0;
  const auto begin_copies = [&] {
    if (copied.done(part)) return;
    const TilePlace at = copied.place(part);
    first_row = part.first_row(at);
    first_column = part.first_column(at);
    rows.begin_tile(turn, first_row);
    columns.begin_tile(turn, first_column);
  };
  // Needs a barrier after begin_copies, since the row numbers may be in shared memory.
  const auto copy_next = [&](int stage) {
    if (!copied.done(part)) {
      if (copied_step == 0) work.ask(stage, first_row, first_column);
      rows.copy_step(turn, copied_step, shared, stage * kStageBytes);
      columns.copy_step(turn, copied_step, shared, stage * kStageBytes + kSideBytes);
      if (++copied_step == steps) {
        copied_step = 0;
        turn ^= 1;
        copied.advance(part, step);
        next_wanted(copied);
        begin_copies();
      }
    }
    commit_copies();  // empty groups too, so that their number tells which copies have ended
  };

  begin_copies();
  for (int stage = 0; stage < stages - 1; ++stage) {
    sync_block();
    copy_next(stage);
  }
  int stage = 0;
  Products<typename Product::Acc> acc;
  for (; !tile.done(part); tile.advance(part, step), next_wanted(tile)) {
    const TilePlace kept = tile.place(part);
    const auto place = [&] { return Product::kKeeps ? kept : tile.place(part); };
    if constexpr (!Work::kBeginsSomewhere) acc.clear();  // clearing here costs no registers
    for (int k = 0; k < steps; ++k) {
      if (stages == kMostStages) {
        wait_copies<kMostStages - 2>();
      } else {
        wait_copies<kFewestStages - 2>();
      }
      sync_block();  // this stage has come, and nobody reads the one before any more
      copy_next(stage == 0 ? stages - 1 : stage - 1);
      if (k == 0) {
        work.begin(place(), stage);
        sync_block();
        if constexpr (Work::kBeginsSomewhere) work.start(acc);
      }
      add_stage<Product>(acc, shared, stage * kStageBytes);
      stage = stage + 1 == stages ? 0 : stage + 1;
    }
    work.end(place(), acc);
  }
  wait_copies<0>();
}

}  // namespace tcm::cuda
