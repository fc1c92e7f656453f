// Tiles in full precision: similarities on matrix units, every pair decided, its penalty summed.
//
// For tiles where screening leaves more candidates than are worth an inner product each, and for all tiles
// where the sample has too many candidates or nothing is screened. Work: 2 kTile² D flops per tile on the raw
// operands, accumulated in float32; 1/norm is applied to the products. Floor for every tile of the upper
// half: 0.5 U for bfloat16. Not yet measured. What compiled code shows for bfloat16, sm_80 / sm_90a:
//
//   registers: 220 / 225, nothing spilled
//   instructions per warp and step of 64 bytes: 225 / 232, of which 64 HMMA and 16 LDSM
//
// A model of an H100 at D = 512, with sixteen steps per tile, in clocks of a multiprocessor per tile: tensor
// pipe 16 · 64 · 4 = 4,100 at its full rate; shared memory 16 · (32 + 16) KiB / 128 B = 6,140; issue
// 16 · 232 = 3,700 and the work once per tile. Shared memory bounds it: at N = 32,768 all tiles of the upper
// half, 249 per multiprocessor, take 0.87 ms, predicted 0.58 U.
#pragma once

#include "screen_state.cuh"
#include "tile_bits.cuh"

namespace tcm::cuda {

// What a thread needs of a row.
struct alignas(16) DenseRow {
  float inverse;
  int same_begin, same_end;
  int self_index;
};

constexpr int kFactsOffset = 0;
constexpr int kInverseOffset = kFactsOffset + kTile * static_cast<int>(sizeof(DenseRow));
constexpr int kDenseBitsOffset = kInverseOffset + kTile * static_cast<int>(sizeof(float));
constexpr int kDensePartialOffset = kDenseBitsOffset + TileBits::kBytes;
constexpr int kDenseTotalsOffset =
    kDensePartialOffset + 2 * kTileThreads / kWarp * static_cast<int>(sizeof(double));
constexpr int kRowNumbersOffset = kDenseTotalsOffset + 2 * static_cast<int>(sizeof(double) + sizeof(int64_t));
constexpr int kDenseHead = kRowNumbersOffset + 2 * kRowNumberBytes;

struct DenseTiles {
  const Side& rows;
  const Side& columns;
  const SuperTile& part;
  const double* margins;
  TileOutput output;
  const ScreenState& state;
  bool every;         // whether all tiles are wanted: the sweep has not run
  const int& weight;  // how many ordered pairs a pair outside the tiles of the diagonal stands for
  SharedArray<DenseRow> facts = shared_memory<DenseRow>(kFactsOffset);
  SharedArray<float> inverses = shared_memory<float>(kInverseOffset);
  TileBits bits = TileBits(kDenseBitsOffset);
  SharedArray<double> partial = shared_memory<double>(kDensePartialOffset);
  // Totals of this block, of each sign by one thread; in shared memory, to save registers.
  SharedArray<double> sums = shared_memory<double>(kDenseTotalsOffset);
  SharedArray<int64_t> counts =
      shared_memory<int64_t>(kDenseTotalsOffset + 2 * static_cast<int>(sizeof(double)));

  TCM_DEVICE void clear() {
    if (thread_index() >= 2) return;
    sums[thread_index()] = 0.0;
    counts[thread_index()] = 0;
  }

  // Called twice per tile, for its copies and for its products: the entry only changes in end().
  TCM_DEVICE bool wants(TilePlace at) const {
    return every || output.entry(at) > static_cast<uint32_t>(state.list_most);
  }

  static constexpr bool kBeginsSomewhere = false;
  TCM_DEVICE void ask(int, int, int) const {}

  TCM_DEVICE void begin(TilePlace at, int) {
    const int row = part.first_row(at) + thread_index(), column = part.first_column(at) + thread_index();
    DenseRow of_row{NAN, 0, 0, -1};
    if (row < rows.n)
      of_row = {rows.inverse[row], rows.same_begin[row], rows.same_end[row], rows.self_index_of(row)};
    facts[thread_index()] = of_row;
    inverses[thread_index()] = column < columns.n ? columns.inverse[column] : NAN;
  }

  TCM_DEVICE void end(TilePlace at, const Products<float>& acc) {
    const int first = part.first_column(at);
    const Margins<float> limits = thresholds<float>(margins_at(margins));
    // Eight pairs are added in float32, these sums in float64: a long float32 sum of equal penalties would be
    // rounded in the same direction at every step.
    double pulls = 0.0, pushes = 0.0;
    float few_pulls = 0.0f, few_pushes = 0.0f;
    DenseRow row{};
    uint32_t same_bits[kWarpTile / kWordBits], self_bits[kWarpTile / kWordBits];
    bits.set([&](int i, int half, int j, int odd) {
      const int w = j / 4, bit = 8 * (j % 4) + odd;
      if (bit == 0) {
        if (w == 0) row = facts[acc.row(i, half)];
        // Shifted so that a thread's pairs are at the same bits in every lane: no columns are compared.
        const int from = first + acc.first_column() + w * kWordBits;
        same_bits[w] = bits_between(row.same_begin - from, row.same_end - from) >> TileBits::shift();
        self_bits[w] = bits_between(row.self_index - from, row.self_index + 1 - from) >> TileBits::shift();
      }
      const bool of_one_class = (same_bits[w] >> bit & 1u) != 0;
      // NaN, and so never hard, where the row or the column does not exist.
      const float s = acc.value[i][j][2 * half + odd] * (row.inverse * inverses[acc.column(j, odd)]);
      const bool hard = is_hard(s, of_one_class, limits) && (self_bits[w] >> bit & 1u) == 0;
      if (hard) {  // a branch: without it more similarities are live at once than registers hold
        (of_one_class ? few_pulls : few_pushes) += penalty(s, of_one_class, limits);
      }
      if (bit == 25) {  // the last of the eight
        pulls += few_pulls;
        pushes += few_pushes;
        few_pulls = few_pushes = 0.0f;
      }
      return hard;
    });
    row = facts[thread_index()];
    const auto unchanged = [](int, uint32_t word) { return word; };
    const uint32_t hard_pairs = bits.store_rows(output.row(at), unchanged, [&](int w, uint32_t word) {
      const int from = first + w * kWordBits;
      const uint32_t same = bits_between(row.same_begin - from, row.same_end - from);
      return packed_counts(count_bits(word & same), count_bits(word & ~same));
    });
    output.set_entry(at, kDecided | hard_pairs);
    if (output.has_columns(at)) bits.store_columns(output.column(at));

    const int times = part.diagonal && at.row == at.column ? 1 : weight;
    constexpr int kWarps = kTileThreads / kWarp;
    const double pulled = block_sum(pulls, partial, kWarps);
    const double pushed = block_sum(pushes, SharedArray<double>{partial.data + kWarps}, kWarps);
    const int sign = thread_index();
    if (sign >= 2) return;
    sums[sign] = sums[sign] + (sign == 0 ? pulled : pushed) * times;
    counts[sign] =
        counts[sign] + int64_t{sign == 0 ? hard_positives(hard_pairs) : hard_negatives(hard_pairs)} * times;
  }
};

// Decides the tiles of a super-tile that the sweep has left, or all tiles; adds to one element of `partial`
// per block.
template <class Product, class T>
TCM_KERNEL(kTileThreads, 2)
dense_tiles_kernel(TCM_PARAMETER(Side) rows, TCM_PARAMETER(Side) columns, TCM_PARAMETER(Shape) shape,
                   const double* margins, int stages, TCM_PARAMETER(SuperTile) part,
                   TCM_PARAMETER(Decisions) to, TCM_PARAMETER(ScreenState) state, TCM_PARAMETER(int) weight,
                   TCM_PARAMETER(Partial) partial) {
  if (is_sparse(state)) return;
  const bool every = !state.screened || is_useless(state);
  DenseTiles tiles{rows, columns, part, margins, TileOutput(to, part), state, every, weight};
  tiles.clear();
  for_each_tile<Product>(part, block_index(), block_count(), EmbeddingRows<T>(rows, shape, kRowNumbersOffset),
                         EmbeddingRows<T>(columns, shape, kRowNumbersOffset + kRowNumberBytes), stages,
                         buffers_offset(kDenseHead), tiles);
  if (thread_index() >= 2) return;
  const int64_t at = int64_t{block_index()} * 2 + thread_index();
  partial.sums[at] += tiles.sums[thread_index()];
  partial.counts[at] += tiles.counts[thread_index()];
}

}  // namespace tcm::cuda
