// Add up, few hard pairs: row by row, one partner after the other.
//
// A warp owns a row. It walks the words of the row's bits in order and takes the partners a few at a time, so
// that several rows are on their way at once: one read of a partner's embedding gives the similarity of a
// candidate, the decision, its penalty and its share of P or Q, which stay in registers. Bytes: D elements a
// candidate and direction, from the L2 cache; at density 1e-3, N = 32,768, D = 512 in bfloat16 that is 1 GB.
// Not yet measured.
//
// Where rows are longer than registers hold, they are taken in slices: the first decides, leaving only hard
// pairs in the bits, and adds its part of each partner, the others add theirs.
//
// Of tiles that were decided in full precision it adds the signs that are lists, and takes away, where a tile
// was added as a whole, the pairs that are not hard.
#pragma once

#include "kernels.h"
#include "rows.cuh"

namespace tcm::cuda {

constexpr int kListThreads = 128;
constexpr int kListRows = kListThreads / kWarp;
constexpr int kListPartialBytes = kListRows * static_cast<int>(sizeof(double) + sizeof(int64_t)) * 2;
constexpr int kLargestPerLane = 32;

// Elements of a row that a lane keeps, at most, and partners that it takes at once.
constexpr int elements_per_lane(int dim) {
  return dim <= 8 * kWarp ? 8 : dim <= 16 * kWarp ? 16 : kLargestPerLane;
}
template <int kPerLane>
constexpr int kAtOnce = kPerLane == kLargestPerLane ? 1 : 2;

template <class T, int kPerLane>
class ListedRow {
 public:
  double sums[2] = {};
  int64_t counts[2] = {};

  TCM_DEVICE ListedRow(const Side& own, const Side& other, const Shape& shape, const Direction& direction,
                       Margins<float> limits, int list_most, bool needs_sums, int row)
      : own_(own),
        other_(other),
        shape_(shape),
        direction_(direction),
        limits_(limits),
        list_most_(list_most),
        needs_sums_(needs_sums),
        tile_(row / kTile) {
    position_ = direction.own_tile * kTile + row;
    other0_ = direction.other_tile * kTile;
    others_ = min(other.n - other0_, direction.other_tiles * kTile);
    rows_there_ = min(own.n - (direction.own_tile + tile_) * kTile, kTile);
    same_begin_ = own.same_begin[position_] - other0_;
    same_end_ = own.same_end[position_] - other0_;
    bits_ = direction.bits + int64_t{row} * direction.words();
    x_ = row_of<T>(own, position_, shape);
    inverse_ = own.inverse[position_];
  }

  TCM_DEVICE void run() {
    const bool adds = own_.sums.positive != nullptr;
    add_slice(0, adds);
    for (int d = kSlice; adds && d < shape_.dim; d += kSlice) add_slice(d, adds);
  }

 private:
  static constexpr int kSlice = kWarp * kPerLane;
  static constexpr int kChunks = kPerLane / kPerChunk<T>;
  static constexpr int kMost = kAtOnce<kPerLane>;

  // The elements of a slice that a lane has: chunk c of it begins at element d.
  TCM_DEVICE static int element_of_lane(int slice, int c) {
    return slice + (c * kWarp + lane_index()) * kPerChunk<T>;
  }

  // A partner of this row, and what becomes of the pair.
  struct Partner {
    int position;
    float inverse;
    bool same;       // of one class
    bool candidate;  // not yet decided
    bool too_much;   // of the sum of a whole tile
    Chunk chunk[kChunks];
  };

  TCM_DEVICE void load(const T* row, int slice, Chunk (&chunk)[kChunks]) const {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) chunk[c] = load_chunk(row, element_of_lane(slice, c), shape_);
  }

  // The words of a row that a warp looks at together.
  struct Words {
    uint32_t take;   // pairs to take
    uint32_t left;   // of this word's candidates, those found hard
    uint32_t entry;  // of its tile
    bool too_much;   // whether its tile's sum was added and is more than this row's share
  };

  TCM_DEVICE Words words_at(int word) const {
    const int tile = word / kTileWords, column = word * kWordBits;
    const bool inside = word < direction_.words();
    const uint32_t entry = inside ? direction_.entry(tile_, tile) : 0;
    const uint32_t hard = entry != 0 ? bits_[word] : 0;
    const uint32_t same = bits_between(same_begin_ - column, same_end_ - column);
    int in_tile = count_bits(hard);
    in_tile += shuffle_xor(in_tile, 1);
    in_tile += shuffle_xor(in_tile, 2);
    if (!is_decided(entry)) return {hard, hard, entry, false};

    const int columns = min(others_ - tile * kTile, kTile);
    const bool whole = is_whole_less_a_list(hard_negatives(entry), rows_there_ * columns, list_most_);
    if (whole && takes_whole(in_tile, columns)) {
      // Positives that are a list stand among what is not a hard negative, and so are taken all the same.
      return {~(hard & ~same) & bits_below(others_ - column), hard, entry, true};
    }
    uint32_t take = whole || is_list(hard_negatives(entry), list_most_) ? hard & ~same : 0;
    if (is_list(hard_positives(entry), list_most_)) take |= hard & same;
    return {take, hard, entry, false};
  }

  // Adds elements [slice, slice + kSlice) of the listed partners; the first slice decides the candidates.
  TCM_DEVICE void add_slice(int slice, bool adds) {
    if (slice == 0) load(x_, 0, own_chunk_);
    const bool rewrites = slice == 0 && adds && shape_.dim > kSlice;
    float p[kPerLane] = {}, q[kPerLane] = {};
    bool touched[2] = {};
    for (int first = 0; first < direction_.words(); first += kWarp) {
      const Words own = words_at(first + lane_index());
      uint32_t take = own.take, left = own.left;
      for (uint32_t pending = ballot(take != 0); pending != 0; pending = ballot(take != 0)) {
        const int source = lowest_bit(pending);
        uint32_t word = shuffle(take, source);
        const uint32_t hard = shuffle(own.left, source), entry = shuffle(own.entry, source);
        const bool too_much = shuffle(static_cast<int>(own.too_much), source) != 0;
        if (lane_index() == source) take = 0;
        while (word != 0) {
          Partner partner[kMost];
          int bit[kMost], found = 0;
#pragma unroll
          for (int m = 0; m < kMost; ++m) {
            if (word == 0) continue;
            bit[m] = lowest_bit(word);
            word &= word - 1;
            begin(partner[m], (first + source) * kWordBits + bit[m], slice);
            partner[m].candidate = !is_decided(entry);
            partner[m].too_much = too_much;
            found = m + 1;
          }
#pragma unroll
          for (int m = 0; m < kMost; ++m) {
            if (m >= found) continue;
            bool is_hard = (hard >> bit[m] & 1u) != 0;
            if (partner[m].candidate && slice == 0) {
              is_hard = decide(partner[m]);
              if (!is_hard && lane_index() == source) left &= ~(1u << bit[m]);
            }
            if (adds) add(partner[m], is_hard, p, q, touched);
          }
        }
      }
      if (rewrites && first + lane_index() < direction_.words() && own.entry != 0) {
        bits_[first + lane_index()] = left;
      }
    }
    if (touched[0]) store(own_.sums.positive, slice, p);
    if (touched[1]) store(own_.sums.negative, slice, q);
  }

  TCM_DEVICE void begin(Partner& partner, int column, int slice) const {
    partner.same = column >= same_begin_ && column < same_end_;
    partner.position = other0_ + column;
    partner.inverse = other_.inverse[partner.position];
    load(row_of<T>(other_, partner.position, shape_), slice, partner.chunk);
  }

  // The rule, from an inner product whose order is the same whichever of the two rows is the own one.
  TCM_DEVICE bool decide(const Partner& partner) {
    float product = 0.0f;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) add_product(product, own_chunk_[c], partner.chunk[c]);
    const T* y = row_of<T>(other_, partner.position, shape_);
    for (int d = element_of_lane(kSlice, 0); d - lane_index() * kPerChunk<T> < shape_.dim;
         d += kWarp * kPerChunk<T>) {
      add_product(product, load_chunk(x_, d, shape_), load_chunk(y, d, shape_));
    }
    const float s = warp_sum(product) * (inverse_ * partner.inverse);
    const bool hard = partner.same ? is_hard_positive(s, limits_) : is_hard_negative(s, limits_);
    if (hard && needs_sums_) {
      // No index that is known only now: it would move both to memory.
      sums[0] += partner.same ? limits_.plus - s : 0.0f;
      sums[1] += partner.same ? 0.0f : s - limits_.minus;
      counts[0] += partner.same ? 1 : 0;
      counts[1] += partner.same ? 0 : 1;
    }
    return hard;
  }

  TCM_DEVICE static void add_product(float& sum, const Chunk& x, const Chunk& y) {
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) sum = fmaf(element(x, i, T()), element(y, i, T()), sum);
  }

  TCM_DEVICE void add(const Partner& partner, bool is_hard, float (&p)[kPerLane], float (&q)[kPerLane],
                      bool (&touched)[2]) const {
    const float times_p = partner.same && is_hard ? partner.inverse : 0.0f;
    const float times_q = partner.too_much           ? -partner.inverse
                          : !partner.same && is_hard ? partner.inverse
                                                     : 0.0f;
    touched[0] |= partner.same && is_hard;
    touched[1] |= partner.too_much || (!partner.same && is_hard);
    if (!is_hard && !partner.too_much) return;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) {
        const float x = element(partner.chunk[c], i, T());
        p[c * kPerChunk<T> + i] = fmaf(x, times_p, p[c * kPerChunk<T> + i]);
        q[c * kPerChunk<T> + i] = fmaf(x, times_q, q[c * kPerChunk<T> + i]);
      }
    }
  }

  TCM_DEVICE void store(float* to, int slice, const float (&sum)[kPerLane]) const {
    float* row = to + own_.order[position_] * shape_.dim;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int d = element_of_lane(slice, c);
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) {
        if (d + i < shape_.dim) row[d + i] += sum[c * kPerChunk<T> + i];
      }
    }
  }

  const Side& own_;
  const Side& other_;
  const Shape& shape_;
  const Direction& direction_;
  Margins<float> limits_;
  int list_most_;
  bool needs_sums_;
  int tile_, position_, other0_, others_, rows_there_, same_begin_, same_end_;
  uint32_t* bits_;
  const T* x_;
  float inverse_;
  Chunk own_chunk_[kChunks];
};

// Candidates and listed pairs of the rows of a super-tile, a warp each. `weight`: how many ordered pairs a
// candidate stands for, 0 where sums are not wanted; they are added to an element a block.
template <class T, int kPerLane>
TCM_KERNEL(kListThreads, kPerLane == 8    ? 4
                         : kPerLane == 16 ? 3
                                          : 2)
lists_kernel(TCM_PARAMETER(Side) own, TCM_PARAMETER(Side) other, TCM_PARAMETER(Shape) shape,
             TCM_PARAMETER(Direction) direction, const double* margins, TCM_PARAMETER(Found) found,
             int weight, TCM_PARAMETER(Partial) partial) {
  const int rows = min(direction.own_tiles * kTile, own.n - direction.own_tile * kTile);
  const int row = block_index() * kListRows + warp_index();
  double sums[2] = {};
  int64_t counts[2] = {};
  if (row < rows) {
    const Margins<float> limits = thresholds<float>(Margins<double>{margins[0], margins[1]});
    ListedRow<T, kPerLane> listed(own, other, shape, direction, limits, found.list_most, weight != 0, row);
    listed.run();
    for (int sign = 0; sign < 2; ++sign) {
      sums[sign] = listed.sums[sign];
      counts[sign] = listed.counts[sign];
    }
  }
  if (weight == 0) return;
  const SharedArray<double> sum_of_row = shared_memory<double>(0);
  const SharedArray<int64_t> count_of_row =
      shared_memory<int64_t>(kListRows * 2 * static_cast<int>(sizeof(double)));
  if (lane_index() == 0) {
    for (int sign = 0; sign < 2; ++sign) {
      sum_of_row[warp_index() * 2 + sign] = sums[sign];
      count_of_row[warp_index() * 2 + sign] = counts[sign];
    }
  }
  sync_block();
  if (thread_index() < 2) {
    for (int w = 0; w < kListRows; ++w) {
      partial.sums[int64_t{block_index()} * 2 + thread_index()] +=
          sum_of_row[w * 2 + thread_index()] * weight;
      partial.counts[int64_t{block_index()} * 2 + thread_index()] +=
          count_of_row[w * 2 + thread_index()] * weight;
    }
  }
}

}  // namespace tcm::cuda
