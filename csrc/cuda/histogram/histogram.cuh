// The histogram: a full sweep of row tiles over column tiles, pairs counted in shared memory.
//
// A block keeps 128 rows, sorted by group, and walks along the columns, so that the counters of its groups
// stay in shared memory. A group has a table of 16- or 32-bit counters for pairs of two classes and one for
// pairs of one class. Tables that do not fit are counted in global memory. Only the rows' groups are
// credited: a symmetric sweep would save half of the products, and lose several times as much on counters of
// the columns' groups, which no block can keep. Counters are integers: the order of additions is free.
//
// Most tiles hold no pair of one class or of one group, and no sample on both sides. One check per tile
// spares their pairs the comparisons. Where all pairs of a tile are within a group, counters hold such pairs,
// and are written out before that change; elsewhere such pairs are few, and go to global memory one by one.
//
// Work for N x N: 2 N² D flops (1 U), then about 16 instructions and one addition in shared memory per pair,
// which the products of the multiprocessor's other block can hide. Bytes: the columns, from the L2 cache,
// once per tile of rows. Floor: 1 U. Not yet measured.
#pragma once

#include "bin_finder.cuh"
#include "cuda/device/products.cuh"

namespace tcm::cuda {

// What a thread needs of a row: RowPlace to count plain pairs, CountedRow to find and count special pairs.
struct alignas(8) RowPlace {
  float inverse;
  int word;  // the first of its group's counters of pairs of two classes
};
struct alignas(16) CountedRow {
  int group, label, self_index;
  int rank;  // of its group among the tile's groups
};

// What all threads need of a tile of rows; in shared memory, to save registers.
struct alignas(16) RowTile {
  int groups;  // in the tile
  int words;   // per table: one per bin, or one for a bin and the bin `words` further
  int kept;    // tables in shared memory; those of pairs of two classes come first
  int most;    // tiles of columns until a counter could overflow
};

constexpr int kPlacesOffset = 0;
constexpr int kRowsOffset = kPlacesOffset + kTile * static_cast<int>(sizeof(RowPlace));
constexpr int kStartsOffset = kRowsOffset + kTile * static_cast<int>(sizeof(CountedRow));
constexpr int kColumnInverseOffset = kStartsOffset + 4 * (kTile + 4);
constexpr int kColumnGroupOffset = kColumnInverseOffset + 4 * kTile;
constexpr int kColumnLabelOffset = kColumnGroupOffset + 4 * kTile;
constexpr int kRowTileOffset = kColumnLabelOffset + 4 * kTile;
constexpr int kNumbersOffset = kRowTileOffset + static_cast<int>(sizeof(RowTile));
constexpr int kHistogramHead = kNumbersOffset + 2 * kRowNumberBytes;

constexpr uint32_t kMost16 = 0xFFFFu, kMost32 = 0xFFFFFFFFu;
constexpr uint32_t kFew = 4096;  // smaller counters may stay when others are written out

struct PairCounting {
  const HistogramSide& rows;
  const HistogramSide& columns;
  const BinFinder& finder;
  const float* edges;
  const HistogramTables& tables;
  const HistogramSweep& sweep;
  const SuperTile& part;  // a task: one tile of rows, some of columns

  SharedArray<RowPlace> places = shared_memory<RowPlace>(kPlacesOffset);
  SharedArray<CountedRow> facts = shared_memory<CountedRow>(kRowsOffset);
  SharedArray<int> starts = shared_memory<int>(kStartsOffset);  // the first row of each group, then the end
  SharedArray<float> inverses = shared_memory<float>(kColumnInverseOffset);
  SharedArray<int> column_groups = shared_memory<int>(kColumnGroupOffset);
  SharedArray<int> column_labels = shared_memory<int>(kColumnLabelOffset);
  SharedArray<uint32_t> counters = shared_memory<uint32_t>(shared_bytes(kHistogramHead, sweep.stages));
  SharedArray<RowTile> row_tile = shared_memory<RowTile>(kRowTileOffset);

  int passed = 0;       // tiles counted since all counters were below kFew
  bool inside = false;  // whether counters hold pairs within a group

  TCM_DEVICE void clear() {
    for (int w = thread_index(); w < sweep.counters; w += kTileThreads) counters[w] = 0;
  }

  // Needs all counters zero, and a barrier since the last use of the previous rows.
  TCM_DEVICE void begin_rows() {
    const int first = part.row * kTile, t = thread_index(), position = first + t;
    const int here = min(kTile, rows.side.n - first), first_rank = rows.rank[first];
    const int groups = rows.rank[first + here - 1] - first_rank + 1;
    const bool wide = int64_t{2} * groups * tables.columns <= sweep.counters;
    const int words = wide ? tables.columns : (tables.columns + 1) / 2;

    RowPlace place{0.0f, 0};
    CountedRow fact{-1, -1, -1, 0};
    if (t < here) {
      fact = {rows.group[position], rows.label[position], rows.side.self_index[position],
              rows.rank[position] - first_rank};
      place = {rows.side.inverse[position], fact.rank * words};
      if (t == 0 || rows.group[position - 1] != fact.group) starts[fact.rank] = t;
    }
    if (t == 0) starts[groups] = here;
    places[t] = place;
    facts[t] = fact;
    sync_block();
    int largest = 1;
    for (int g = 0; g < groups; ++g) largest = max(largest, starts[g + 1] - starts[g]);
    const uint32_t room = (wide ? kMost32 : kMost16) - kFew;
    if (t == 0) {
      row_tile[0] = {groups, words, min(2 * groups, sweep.counters / words),
                     static_cast<int>(room / static_cast<uint32_t>(largest * kTile))};
    }
    passed = 0;
    inside = false;
  }

  TCM_DEVICE void end_rows() {
    sync_block();
    write_out(1);
    sync_block();
  }

  TCM_DEVICE bool wants(TilePlace at) const { return sweep.inside || !is_inside(at); }

  static constexpr bool kBeginsSomewhere = false;
  TCM_DEVICE void ask(int, int, int) const {}

  TCM_DEVICE void begin(TilePlace at, int) {
    const int t = thread_index(), position = part.first_column(at) + t;
    const bool there = position < columns.side.n;
    inverses[t] = there ? columns.side.inverse[position] : 0.0f;
    column_groups[t] = there ? columns.group[position] : -1;
    column_labels[t] = there ? columns.label[position] : -1;
  }

  TCM_DEVICE void end(TilePlace at, const Products<float>& acc) {
    const RowTile tile = row_tile[0];
    const bool now_inside = is_inside(at);
    if (now_inside != inside) {
      write_out(1);
    } else if (passed == tile.most) {
      write_out(kFew);
    }
    passed = now_inside != inside || passed == tile.most ? 1 : passed + 1;
    inside = now_inside;
    if (sync_block_or(is_special(at) || tile.groups > tile.kept)) {
      count_special(at, tile, acc);
    } else {
      count_plain(tile.words, acc);
    }
  }

 private:
  TCM_DEVICE const TileFacts& column_tile(TilePlace at) const {
    return columns.tiles[part.column + at.column];
  }

  // Whether all pairs of a tile are within one group.
  TCM_DEVICE bool is_inside(TilePlace at) const {
    const TileFacts& own = rows.tiles[part.row];
    const TileFacts& other = column_tile(at);
    return own.first_group == own.last_group && other.first_group == own.first_group &&
           other.last_group == own.first_group;
  }

  // Whether this thread's row may have a pair of one class, or of one group where not all pairs are, or meet
  // itself in the tile; or whether the row, or this thread's column, does not exist.
  TCM_DEVICE bool is_special(TilePlace at) const {
    const TileFacts& other = column_tile(at);
    const int first = part.first_column(at);
    const CountedRow row = facts[thread_index()];
    const bool one_class = other.least_label <= row.label && row.label <= other.largest_label;
    const bool one_group = !inside && other.first_group <= row.group && row.group <= other.last_group;
    const bool meets_itself = first <= row.self_index && row.self_index < first + kTile;
    return one_class || one_group || meets_itself || row.group < 0 ||
           first + thread_index() >= columns.side.n;
  }

  // Calls `count(r, c, k)` for this thread's pairs: its row r, the tile's column c, the table's column k.
  template <class Inverse, class Count>
  TCM_DEVICE void for_each_pair(const Products<float>& acc, Inverse inverse, Count count) const {
    constexpr int kRows = 2 * kFragmentRows;
#pragma unroll
    for (int j = 0; j < kFragmentColumns; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int c = acc.column(j, odd);
        const float of_column = inverses[c];
        float s[kRows];
        int k[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          s[r] = acc.value[r / 2][j][2 * (r % 2) + odd] * (inverse(r) * of_column);
        }
        find_columns(finder, edges, s, k);
#pragma unroll
        for (int r = 0; r < kRows; ++r) count(r, c, k[r]);
      }
    }
  }

  // The row in the tile of this thread's row r.
  TCM_DEVICE static int row_of(int r) { return Products<float>::row(r / 2, r % 2); }

  // All pairs of a tile without special ones: of two classes, and within one group exactly where `inside`.
  TCM_DEVICE void count_plain(int words, const Products<float>& acc) const {
    RowPlace row[2 * kFragmentRows];
#pragma unroll
    for (int r = 0; r < 2 * kFragmentRows; ++r) row[r] = places[row_of(r)];
    for_each_pair(
        acc, [&](int r) { return row[r].inverse; }, [&](int r, int, int k) { add(row[r].word, k, words); });
  }

  TCM_DEVICE void count_special(TilePlace at, const RowTile& tile, const Products<float>& acc) const {
    const int first = part.first_column(at);
    for_each_pair(
        acc, [&](int r) { return RowPlace(places[row_of(r)]).inverse; },
        [&](int r, int c, int k) {
          const CountedRow row = facts[row_of(r)];
          const int column_group = column_groups[c];
          if (row.group < 0 || column_group < 0 || row.self_index == first + c) return;
          const bool one_class = column_labels[c] == row.label, one_group = column_group == row.group;
          const int table = row.rank + (one_class ? tile.groups : 0);
          if (one_group == inside && table < tile.kept) {
            add(table * tile.words, k, tile.words);
          } else if (!one_group || sweep.inside) {
            credit(row.group, one_class, one_group, k, 1);
          }
        });
  }

  TCM_DEVICE void add(int first_word, int k, int words) const {
    const bool upper = k >= words;
    add_shared(counters, first_word + (upper ? k - words : k), upper ? 1u << 16 : 1u);
  }

  TCM_DEVICE void credit(int group, bool one_class, bool one_group, int k, int64_t pairs) const {
    int64_t* table = one_class ? tables.positives : tables.negatives;
    add_global(table + int64_t{group} * tables.columns + k, one_group ? pairs : pairs * sweep.weight);
    if (one_group) add_global(tables.of_one_group + (one_class ? k : tables.columns + k), pairs);
  }

  // Moves counters of at least `least` pairs to global memory. Needs a barrier before and after it.
  TCM_DEVICE void write_out(uint32_t least) const {
    const RowTile tile = row_tile[0];
    const int words = tile.words;
    const bool wide = words == tables.columns;
    for (int table = 0; table < tile.kept; ++table) {
      const bool one_class = table >= tile.groups;
      const int group = CountedRow(facts[starts[one_class ? table - tile.groups : table]]).group;
      for (int w = thread_index(); w < words; w += kTileThreads) {
        const uint32_t word = counters[table * words + w];
        const uint32_t low = wide ? word : word & kMost16, high = wide ? 0 : word >> 16;
        uint32_t left = word;
        if (low >= least) {
          credit(group, one_class, inside, w, low);
          left -= low;
        }
        if (high >= least) {
          credit(group, one_class, inside, w + words, high);
          left -= high << 16;
        }
        if (left != word) counters[table * words + w] = left;
      }
    }
  }
};

template <class Product, class T>
TCM_KERNEL(kTileThreads, 2)
histogram_kernel(TCM_PARAMETER(HistogramSide) rows, TCM_PARAMETER(HistogramSide) columns,
                 TCM_PARAMETER(Shape) shape, TCM_PARAMETER(BinFinder) finder, const float* edges,
                 TCM_PARAMETER(HistogramTables) tables, TCM_PARAMETER(HistogramSweep) sweep) {
  SuperTile part{0, 1, 0, 0, false};
  PairCounting counting{rows, columns, finder, edges, tables, sweep, part};
  counting.clear();
  const EmbeddingRows<T> of_rows(rows.side, shape, kNumbersOffset);
  const EmbeddingRows<T> of_columns(columns.side, shape, kNumbersOffset + kRowNumberBytes);
#pragma unroll 1
  for (int task = block_index(); task < sweep.tasks; task += block_count()) {
    part.row = task % sweep.row_tiles;
    part.column = task / sweep.row_tiles * sweep.chunk_tiles;
    part.columns = min(sweep.chunk_tiles, sweep.column_tiles - part.column);
    counting.begin_rows();
    for_each_tile<Product>(part, 0, 1, of_rows, of_columns, sweep.stages, buffers_offset(kHistogramHead),
                           counting);
    counting.end_rows();
  }
}

}  // namespace tcm::cuda
