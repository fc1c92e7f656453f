// Screen: the int8 sweep. Every pair of a super-tile is proven harmless or becomes a candidate.
//
// The bound of a pair costs one integer comparison, of the product of its codes with a threshold of its row:
// the codes of a tile share a scale, and products begin not at 0 but at their column's part of the bound
// (certificate.h). Errors and scales of a tile are copied with its first step, so that no thread waits for
// them. Candidates of a tile are written as bits, by row and by column, and their number into the directory;
// a tile with many is left to dense_tiles.cuh. A fixed sample of tiles is screened first: where that has more
// candidates than are worth deciding one by one, the sweep does not run at all.
//
// Work: N² D int8 operations for the upper half of an N x N matrix, and one comparison per product; codes are
// read from the L2 cache, 2 kTile code_dim bytes per tile. What compiled code shows, for sm_80 / sm_90a:
//
//   registers: 215 / 222, nothing spilled
//   instructions per warp and step of 64 bytes: 157 / 159, of which 64 IMMA and 16 LDSM
//
// A model, not a measurement, of an H100 at D = 512, with eight steps per tile, in clocks of a multiprocessor
// per tile: tensor pipe 8 · 64 · 4 = 2,050 at its full rate, and 3,300 at the 62 % that mma.sync is said to
// reach; shared memory 8 · (32 + 16) KiB / 128 B = 3,070; issue 8 · 159 and about 500 once per tile = 1,800.
// So mma.sync and shared memory bound it, and issue leaves room for the other block's epilogue: 249 tiles per
// multiprocessor, at N = 32,768, take 0.47 ms, predicted 0.31 U where U, bfloat16, is 1.5 ms. On an A100 the
// tensor pipe bounds it, with 4,100 clocks per tile.
#pragma once

#include <cstddef>

#include "common/certificate.h"
#include "screen_state.cuh"
#include "tile_bits.cuh"

namespace tcm::cuda {

// What a tile's pairs need besides products; copied with the tile's first step, into one slot per buffer.
struct alignas(16) TileErrors {
  float row[kTile];
  float column[kTile];
  float row_scale, column_scale;
};

// The initial products of two adjacent columns.
struct alignas(8) ColumnPair {
  int offset[2];
};

// Shared memory besides the buffers: thresholds of rows, initial products of columns, errors of the tiles in
// flight, and a tile's bits.
constexpr int kLeastOffset = 0;
constexpr int kOffsetsOffset = kLeastOffset + kTile * static_cast<int>(sizeof(int));
constexpr int kErrorsOffset = kOffsetsOffset + kTile * static_cast<int>(sizeof(int));
constexpr int kErrorsBytes = static_cast<int>(sizeof(TileErrors));
constexpr int kSweepBitsOffset = kErrorsOffset + kMostStages * kErrorsBytes;
constexpr int kSweepHead = kSweepBitsOffset + TileBits::kBytes;

// Common to the sweep and the probe before it: products of codes, and which of them reach a threshold.
struct CandidateFinder {
  const Side& rows;
  const Side& columns;
  const SuperTile& part;
  float threshold_minus;
  float root_dim;
  SharedArray<int> least = shared_memory<int>(kLeastOffset);
  SharedArray<int> offsets = shared_memory<int>(kOffsetsOffset);
  TileBits bits = TileBits(kSweepBitsOffset);

  static constexpr bool kBeginsSomewhere = true;
  TCM_DEVICE bool wants(TilePlace) const { return true; }

  TCM_DEVICE void ask(int slot, int first_row, int first_column) const {
    const SharedArray<char> shared = shared_memory<char>(kErrorsOffset);
    const int to = slot * kErrorsBytes, of_columns = to + static_cast<int>(offsetof(TileErrors, column));
    const int lane = lane_index(), scales = to + static_cast<int>(offsetof(TileErrors, row_scale));
    if (warp_index() == 0) {
      copy_async<kChunk>(shared, to + lane * kChunk, rows.error + first_row + lane * 4);
    } else if (warp_index() == 1) {
      copy_async<kChunk>(shared, of_columns + lane * kChunk, columns.error + first_column + lane * 4);
    } else if (warp_index() == 2 && lane < 2) {
      copy_async<4>(shared, scales + lane * 4,
                    lane == 0 ? rows.scale + first_row / kTile : columns.scale + first_column / kTile, true);
    }
  }

  TCM_DEVICE void begin(TilePlace at, int slot) const {
    const SharedArray<float> errors = shared_memory<float>(kErrorsOffset + slot * kErrorsBytes);
    constexpr int kScales = 2 * kTile;
    const float of_row = errors[kScales], of_column = errors[kScales + 1];
    const float inverse = inverse_scale(of_row, of_column);
    const int t = thread_index();
    offsets[t] = column_offset(errors[kTile + t], inverse);
    least[t] = part.first_row(at) + t < rows.n
                   ? row_threshold(threshold_minus, errors[t], errors_at_most(of_column, root_dim), inverse)
                   : INT32_MAX;  // out of reach
  }

  TCM_DEVICE void start(Products<int32_t>& acc) const {
    const SharedArray<ColumnPair> pairs = shared_memory<ColumnPair>(kOffsetsOffset);
    acc.begin([&](int j) { return ColumnPair(pairs[acc.column(j, 0) / 2]); },
              [](const ColumnPair& pair, int odd) { return pair.offset[odd]; });
  }

  // Whether this thread has a product that reaches its row's threshold.
  TCM_DEVICE bool has_candidate(const Products<int32_t>& acc) const {
    bool any = false;
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int threshold = least[acc.row(i, half)];
#pragma unroll
        for (int j = 0; j < kFragmentColumns; ++j) {
          any |= acc.value[i][j][2 * half] >= threshold || acc.value[i][j][2 * half + 1] >= threshold;
        }
      }
    }
    return any;
  }

  TCM_DEVICE void set_bits(const Products<int32_t>& acc) {
    bits.set([&](int i, int half, int j, int odd) {
      return acc.value[i][j][2 * half + odd] >= least[acc.row(i, half)];
    });
  }
};

TCM_DEVICE CandidateFinder candidate_finder(const Side& rows, const Side& columns, const SuperTile& part,
                                            const Shape& shape, const double* margins) {
  return {rows, columns, part, thresholds<float>(margins_at(margins)).minus,
          sqrtf(static_cast<float>(shape.dim))};
}

struct Probe : CandidateFinder {
  int* count;

  TCM_DEVICE void end(TilePlace at, const Products<int32_t>& acc) {
    set_bits(acc);
    const int position = min(part.first_row(at) + thread_index(), rows.n - 1), first = part.first_column(at);
    // Pairs of one class are left out: they lie in a band that the sample may hit too often, and whose tiles
    // may be decided in full precision anyway.
    const auto of_two_classes = [&](int w, uint32_t word) {
      const int from = first + w * kWordBits;
      return word & bits_below(columns.n - from) &
             ~bits_between(rows.same_begin[position] - from, rows.same_end[position] - from);
    };
    const uint32_t left =
        bits.count_rows([&](int w, uint32_t word) { return count_bits(of_two_classes(w, word)); });
    if (thread_index() == 0) *count = static_cast<int>(left);
  }
};

// Counts the candidates of two classes in kSamples tiles spread over the matrix, one block per tile: evenly
// down the rows, and in steps of the golden ratio across the columns.
TCM_KERNEL(kTileThreads, 2)
probe_kernel(TCM_PARAMETER(Side) rows, TCM_PARAMETER(Side) columns, TCM_PARAMETER(Shape) shape,
             const double* margins, int stages, int* samples) {
  const int row_tiles = static_cast<int>(tiles_of(rows.n)),
            column_tiles = static_cast<int>(tiles_of(columns.n));
  const float turns = static_cast<float>(block_index()) * 0.618033988f;
  const int column =
      min(static_cast<int>((turns - floorf(turns)) * static_cast<float>(column_tiles)), column_tiles - 1);
  const int row = static_cast<int>(int64_t{block_index()} * row_tiles / kSamples);
  const SuperTile part{row, 1, column, 1, false};
  Probe probe{candidate_finder(rows, columns, part, shape, margins), samples + block_index()};
  for_each_tile<Int8Product>(part, 0, 1, CodeRows(rows, shape), CodeRows(columns, shape), stages,
                             buffers_offset(kSweepHead), probe);
}

struct Sweep : CandidateFinder {
  TileOutput output;
  const ScreenState& state;

  TCM_DEVICE void end(TilePlace at, const Products<int32_t>& acc) {
    const int first = part.first_column(at), last = min(part.first_row(at) + kTile, rows.n) - 1;
    // Rows are in label order, so only tiles in a band can hold pairs of one class.
    const bool in_band = rows.same_begin[part.first_row(at)] < first + kTile && rows.same_end[last] > first;
    if (!sync_block_or(has_candidate(acc)) && !in_band) {
      output.set_entry(at, 0);
      return;
    }
    set_bits(acc);
    const int own = part.first_row(at) + thread_index(), position = min(own, rows.n - 1);
    const int begin = rows.same_begin[position] - first, end = rows.same_end[position] - first;
    const int self_index = rows.self_index_of(position) - first;
    // The sweep only proves pairs of two classes harmless: all pairs of one class stay candidates.
    const auto candidates = [&](int w, uint32_t word) {
      const int from = w * kWordBits;
      word |= bits_between(begin - from, end - from);
      word &= bits_below(columns.n - first - from) & ~bits_between(self_index - from, self_index + 1 - from);
      return own < rows.n ? word : 0;
    };
    const uint32_t count = bits.store_rows(output.row(at), candidates, [](int, uint32_t word) {
      return static_cast<uint32_t>(count_bits(word));
    });
    output.set_entry(at, count);
    if (count > static_cast<uint32_t>(state.list_most)) {
      if (thread_index() == 0) *state.has_dense_tile = 1;
    } else if (count > 0 && output.has_columns(at)) {
      bits.store_columns(output.column(at));
    }
  }
};

// Screens the tiles of a super-tile.
TCM_KERNEL(kTileThreads, 2)
sweep_kernel(TCM_PARAMETER(Side) rows, TCM_PARAMETER(Side) columns, TCM_PARAMETER(Shape) shape,
             const double* margins, int stages, TCM_PARAMETER(SuperTile) part, TCM_PARAMETER(Decisions) to,
             TCM_PARAMETER(ScreenState) state) {
  if (is_useless(state)) return;
  Sweep sweep{candidate_finder(rows, columns, part, shape, margins), TileOutput(to, part), state};
  for_each_tile<Int8Product>(part, block_index(), block_count(), CodeRows(rows, shape),
                             CodeRows(columns, shape), stages, buffers_offset(kSweepHead), sweep);
}

}  // namespace tcm::cuda
