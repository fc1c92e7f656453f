// Accumulate, few hard pairs: row by row, one partner after the other.
//
// A warp owns a row. It reads 32 entries of its row of the directory at once, and the words of the tiles
// whose entries are not 0, eight tiles at a time: of other tiles it reads the entry only, four reads for a
// row of 128 empty tiles. Partners are taken a few at a time, so that several rows are in flight at once. One
// read of a partner's embedding gives the similarity of a candidate, the decision, its penalty and its share
// of P or Q, which stay in registers. Bytes: D elements per candidate and direction, from the L2 cache; at
// density 1e-3, N = 32,768, D = 512 in bfloat16 that is 1 GB. Not yet measured.
//
// Rows longer than registers hold are taken in slices. The first decides the candidates, leaves only hard
// pairs in the bits, and adds its part of each partner; the others add theirs.
//
// Of tiles decided in full precision, hard pairs of one sign are added where they are a list. Of a tile taken
// whole, rows that took it subtract the pairs that are not hard negatives, other rows add those that are.
#pragma once

#include "cuda/device/rows.cuh"
#include "decisions.h"

namespace tcm::cuda {

constexpr int kListThreads = 128;
constexpr int kListRows = kListThreads / kWarp;
constexpr int kListPartialBytes = kListRows * static_cast<int>(sizeof(double) + sizeof(int64_t)) * 2;
constexpr int kLargestPerLane = 32;

// Elements of a row that a lane keeps, at most, and partners that a warp takes at once.
constexpr int elements_per_lane(int dim) {
  return dim <= 8 * kWarp ? 8 : dim <= 16 * kWarp ? 16 : kLargestPerLane;
}
template <class T, int kPerLane>
constexpr int kAtOnce = kPerLane * sizeof(T) <= 32   ? 4
                        : kPerLane * sizeof(T) <= 64 ? 2
                                                     : 1;

// Blocks per multiprocessor that registers have to suffice for.
template <class T, int kPerLane>
constexpr int kListBlocks = kPerLane == kLargestPerLane       ? 2
                            : kPerLane == 8 && sizeof(T) == 2 ? 4
                                                              : 3;

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
  static constexpr int kMost = kAtOnce<T, kPerLane>;

  // The element at which this lane's chunk c of a slice begins.
  TCM_DEVICE static int element_of_lane(int slice, int c) {
    return slice + (c * kWarp + lane_index()) * kPerChunk<T>;
  }

  // A partner of this row, and what is known of the pair; small, since several are in registers at a time.
  struct Partner {
    int column;  // in the super-tile
    float inverse;
    uint32_t facts;  // of the enum below
    Chunk chunk[kChunks];

    TCM_DEVICE bool is(uint32_t fact) const { return (facts & fact) != 0; }
  };
  enum : uint32_t {
    kCandidate = 1,  // not yet decided
    kTooMuch = 2,    // to be subtracted: its tile was added whole
    kSame = 4,       // of one class
    kHard = 8,       // its bit is set; of a candidate, once decided
  };
  static constexpr int kShiftLane = 8;  // above the facts: the lane that holds the pair's word

  TCM_DEVICE void load(const T* row, int slice, Chunk (&chunk)[kChunks]) const {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) chunk[c] = load_chunk(row, element_of_lane(slice, c), shape_);
  }

  // A lane's word of the row's bits, and the entry of its tile; four lanes hold the words of one tile.
  struct Word {
    int number;  // in the row
    uint32_t entry;
    uint32_t bits;
  };

  // The words of the tiles whose entries are not 0, in order. A warp reads kWarp entries and the words of
  // kTilesAtOnce tiles at once.
  class Words {
   public:
    TCM_DEVICE explicit Words(const ListedRow& row)
        : row_(row), entry_(row.entry_at(lane_index())), next_entry_(row.entry_at(kWarp + lane_index())) {
      left_ = ballot(entry_ != 0);
    }

    // Starts reading the next words; false where there are none.
    TCM_DEVICE bool take(Word& word) {
      while (left_ == 0) {
        first_ += kWarp;
        if (first_ >= row_.direction_.other_tiles) return false;
        entry_ = next_entry_;
        next_entry_ = row_.entry_at(first_ + kWarp + lane_index());
        left_ = ballot(entry_ != 0);
      }
      uint32_t own = left_;
#pragma unroll
      for (int t = 1; t < kTilesAtOnce; ++t) {
        left_ &= left_ - 1;
        if (lane_index() / kTileWords >= t) own = left_;
      }
      left_ &= left_ - 1;
      const int tile = max(lowest_bit(own), 0);
      const uint32_t entry = shuffle(entry_, tile);
      word.number = (first_ + tile) * kTileWords + lane_index() % kTileWords;
      word.entry = own != 0 ? entry : 0;
      word.bits = own != 0 ? row_.bits_[word.number] : 0;
      return true;
    }

   private:
    static constexpr int kTilesAtOnce = kWarp / kTileWords;
    const ListedRow& row_;
    int first_ = 0;        // tile of the first entry
    uint32_t entry_;       // of this lane
    uint32_t next_entry_;  // of this lane, of the next kWarp
    uint32_t left_;        // of these, the nonzero ones not yet taken, as bits
  };

  TCM_DEVICE uint32_t entry_at(int tile) const {
    return tile < direction_.other_tiles ? direction_.entry(tile_, tile) : 0;
  }

  // The pairs to take from a word, and the facts that hold for all of them.
  struct Pairs {
    uint32_t take;
    uint32_t facts;
  };

  TCM_DEVICE Pairs pairs_of(const Word& word) const {
    const uint32_t entry = word.entry, hard = word.bits;
    const int tile = word.number / kTileWords, column = word.number * kWordBits;
    const uint32_t same = bits_between(same_begin_ - column, same_end_ - column);
    int in_tile = count_bits(hard);
    in_tile += shuffle_xor(in_tile, 1);
    in_tile += shuffle_xor(in_tile, 2);
    if (!is_decided(entry)) return {hard, kCandidate};

    const int columns = min(others_ - tile * kTile, kTile);
    const bool whole = is_whole_less_a_list(hard_negatives(entry), rows_there_ * columns, list_most_);
    if (whole && takes_whole(in_tile, columns)) {
      // Hard positives, which are a list here, are not hard negatives, and so are taken too.
      return {~(hard & ~same) & bits_below(others_ - column), kTooMuch};
    }
    uint32_t take = whole || is_list(hard_negatives(entry), list_most_) ? hard & ~same : 0;
    if (is_list(hard_positives(entry), list_most_)) take |= hard & same;
    return {take, 0};
  }

  // Adds elements [slice, slice + kSlice) of the listed partners; the first slice decides the candidates.
  TCM_DEVICE void add_slice(int slice, bool adds) {
    if (slice == 0) load(x_, 0, own_chunk_);
    const bool rewrites = slice == 0 && adds && shape_.dim > kSlice;
    float p[kPerLane] = {}, q[kPerLane] = {};
    bool touched[2] = {};
    Word word, next;
    Words words(*this);
    // Bits are read one round ahead, and entries before them, to hide the latency.
    for (bool more = words.take(next); more;) {
      word = next;
      more = words.take(next);
      const Pairs own = pairs_of(word);
      uint32_t take = own.take, left = word.bits;
      for (uint32_t pending = ballot(take != 0); pending != 0;) {
        Partner partner[kMost];
        int found = 0;
#pragma unroll
        for (int m = 0; m < kMost; ++m) {
          if (pending == 0) continue;
          begin(partner[m], own, take, word, lowest_bit(pending), slice);
          pending = ballot(take != 0);
          found = m + 1;
        }
#pragma unroll
        for (int m = 0; m < kMost; ++m) {
          if (m >= found) continue;
          if (partner[m].is(kCandidate) && slice == 0) {
            const bool is_hard = decide(partner[m]);
            partner[m].facts = is_hard ? partner[m].facts | kHard : partner[m].facts & ~kHard;
            if (!is_hard && lane_index() == static_cast<int>(partner[m].facts >> kShiftLane)) {
              left &= ~(1u << partner[m].column % kWordBits);
            }
          }
          if (adds) add(partner[m], p, q, touched);
        }
      }
      if (rewrites && word.entry != 0) bits_[word.number] = left;
    }
    if (touched[0]) store(own_.sums.positive, slice, p);
    if (touched[1]) store(own_.sums.negative, slice, q);
  }

  // Takes the next partner from the word of lane `source`, clears its bit there, and starts reading its row.
  TCM_DEVICE void begin(Partner& partner, const Pairs& own, uint32_t& take, const Word& word, int source,
                        int slice) const {
    const uint32_t taken = shuffle(take, source), bit = taken & (0u - taken);
    if (lane_index() == source) take ^= bit;
    partner.column = shuffle(word.number, source) * kWordBits + lowest_bit(taken);
    partner.facts = shuffle(own.facts, source) | static_cast<uint32_t>(source) << kShiftLane;
    if (partner.column >= same_begin_ && partner.column < same_end_) partner.facts |= kSame;
    if ((shuffle(word.bits, source) & bit) != 0) partner.facts |= kHard;
    partner.inverse = other_.inverse[other0_ + partner.column];
    load(row_of<T>(other_, other0_ + partner.column, shape_), slice, partner.chunk);
  }

  // Decides a candidate. The inner product is summed in the same order whichever row is the own one.
  TCM_DEVICE bool decide(const Partner& partner) {
    float product = 0.0f;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) add_product(product, own_chunk_[c], partner.chunk[c]);
    const T* y = row_of<T>(other_, other0_ + partner.column, shape_);
    for (int d = element_of_lane(kSlice, 0); d - lane_index() * kPerChunk<T> < shape_.dim;
         d += kWarp * kPerChunk<T>) {
      add_product(product, load_chunk(x_, d, shape_), load_chunk(y, d, shape_));
    }
    const float s = warp_sum(product) * (inverse_ * partner.inverse);
    const bool same = partner.is(kSame), hard = is_hard(s, same, limits_);
    if (hard && needs_sums_) {
      // No index known only at run time: it would move both arrays to local memory.
      const float added = penalty(s, same, limits_);
      sums[0] += same ? added : 0.0f;
      sums[1] += same ? 0.0f : added;
      counts[0] += same ? 1 : 0;
      counts[1] += same ? 0 : 1;
    }
    return hard;
  }

  TCM_DEVICE static void add_product(float& sum, const Chunk& x, const Chunk& y) {
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) sum = fmaf(element(x, i, T()), element(y, i, T()), sum);
  }

  TCM_DEVICE void add(const Partner& partner, float (&p)[kPerLane], float (&q)[kPerLane],
                      bool (&touched)[2]) const {
    const float times_p = partner.is(kSame) && partner.is(kHard) ? partner.inverse : 0.0f;
    const float times_q = partner.is(kTooMuch)                      ? -partner.inverse
                          : !partner.is(kSame) && partner.is(kHard) ? partner.inverse
                                                                    : 0.0f;
    touched[0] |= partner.is(kSame) && partner.is(kHard);
    touched[1] |= partner.is(kTooMuch) || (!partner.is(kSame) && partner.is(kHard));
    if (!partner.is(kHard) && !partner.is(kTooMuch)) return;
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
      float values[kPerChunk<T>];
      load_floats(values, row, d, shape_);
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) values[i] += sum[c * kPerChunk<T> + i];
      store_floats(values, row, d, shape_);
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

// Candidates and listed pairs of the rows of a super-tile, one warp per row. `weight`: how many ordered pairs
// a candidate stands for, 0 where sums are not wanted. Sums are added to one element of `partial` per block.
template <class T, int kPerLane>
TCM_KERNEL(kListThreads, (kListBlocks<T, kPerLane>))
lists_kernel(TCM_PARAMETER(Side) own, TCM_PARAMETER(Side) other, TCM_PARAMETER(Shape) shape,
             TCM_PARAMETER(Direction) direction, const double* margins, TCM_PARAMETER(ScreenState) state,
             int weight, TCM_PARAMETER(Partial) partial) {
  const int rows = min(direction.own_tiles * kTile, own.n - direction.own_tile * kTile);
  const int row = block_index() * kListRows + warp_index();
  double sums[2] = {};
  int64_t counts[2] = {};
  if (row < rows) {
    const Margins<float> limits = thresholds<float>(margins_at(margins));
    ListedRow<T, kPerLane> listed(own, other, shape, direction, limits, state.list_most, weight != 0, row);
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
