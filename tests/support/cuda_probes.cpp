// What tests need of the CUDA sources besides the ops, as plain C functions: host arithmetic, single
// instructions of the emulator, and kernels with a fault that the emulator has to find. Those that return
// text return "" or the message of what was thrown.
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "common/certificate.h"
#include "cuda/histogram/bin_finder.cuh"
#include "cuda/histogram/histogram.h"
#include "cuda/loss/kernels.h"
#include "cuda/loss/plan.h"
#include "cuda/loss/tile_bits.cuh"

using namespace tcm::cuda;

namespace {

std::string message;

template <class F>
const char* caught(F f) {
  message.clear();
  try {
    f();
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

const Device kDevice{nullptr, 2, kMostStages};

void prepare(const Side& side, const Shape& shape, Dtype dtype, const int64_t* other_label, int others,
             int* not_finite) {
  launch_norms(kDevice, dtype, side, shape, other_label, others, not_finite);
  launch_codes(kDevice, dtype, side, shape);
}

// Rows in the order of memory, each of a class of its own: `first_label` and those after it.
struct PreparedSide {
  std::vector<int64_t> order, label;
  std::vector<int32_t> self_index, same_begin, same_end;
  std::vector<float> inverse, own_scale;
  Side side{};

  PreparedSide(const void* x, int n, int first_label, int8_t* code, float* error, float* scale)
      : order(n), label(n), self_index(n, -1), same_begin(n), same_end(n), inverse(n), own_scale(n) {
    std::iota(order.begin(), order.end(), 0);
    std::iota(label.begin(), label.end(), first_label);
    side = {x,
            order.data(),
            label.data(),
            self_index.data(),
            same_begin.data(),
            same_end.data(),
            inverse.data(),
            own_scale.data(),
            code,
            error,
            scale,
            {nullptr, nullptr},
            n};
  }
};

}  // namespace

extern "C" {

// The tiles of a walk, at most `most`; returns how many the walk has.
int64_t probe_walk(int rows, int columns, int diagonal, int first, int step, int64_t most, int* row,
                   int* column) {
  const SuperTile part{0, rows, 0, columns, diagonal != 0};
  int64_t count = 0;
  for (TileWalk walk(part, first, step); !walk.done(part); walk.advance(part, step), ++count) {
    if (count < most) {
      row[count] = walk.place(part).row;
      column[count] = walk.place(part).column;
    }
  }
  return count;
}

// out: bytes, bytes to be zeroed, partial sums; then the first byte and the bytes (-1 and 0 where null) of samples,
// has_dense_tile, not_finite, sums, counts, the rows' same_begin, same_end, inverse, own_scale, code, error and
// scale, the columns' likewise, directory, row_bits, column_bits and block_sums. The workspace depends on the number
// of super-tiles alone, not on where they are.
void probe_workspace(int64_t rows, int64_t columns, int64_t dim, int is_self, int screened, int by_column,
                     int edge, int64_t programs, int64_t parts, int64_t* out) {
  Plan plan{rows,
            columns,
            static_cast<int>(dim),
            is_self != 0,
            screened != 0,
            by_column != 0,
            edge,
            programs,
            64,
            2048,
            std::vector<SuperTile>(static_cast<size_t>(parts))};
  char* base = reinterpret_cast<char*>(uintptr_t{1} << 40);
  Workspace work;
  const int64_t bytes = work.carve(plan, base);
  const int64_t head[] = {bytes, work.zeroed, plan.partials()};
  out = std::copy(std::begin(head), std::end(head), out);
  const auto put = [&](const void* at, int64_t size) {
    *out++ = at == nullptr ? -1 : static_cast<const char*>(at) - base;
    *out++ = at == nullptr ? 0 : size;
  };
  const auto put_side = [&](const Workspace::OfSide& side, int64_t n) {
    put(side.same_begin, 4 * n);
    put(side.same_end, 4 * n);
    put(side.inverse, 4 * n);
    put(side.own_scale, 4 * n);
    put(side.code, tiles_of(n) * kTile * plan.code_dim());
    put(side.error, 4 * tiles_of(n) * kTile);
    put(side.scale, 4 * tiles_of(n));
  };
  const int64_t r = plan.row_tiles(), c = plan.column_tiles();
  put(work.samples, 4 * kSamples);
  put(work.has_dense_tile, 4 * static_cast<int64_t>(plan.parts.size()));
  put(work.not_finite, 4);
  put(work.partial.sums, 16 * plan.partials());
  put(work.partial.counts, 16 * plan.partials());
  put_side(work.of_rows, rows);
  put_side(work.of_columns, columns);
  put(work.directory, 4 * r * c);
  put(work.row_bits, 4 * r * c * kTile * kTileWords);
  put(work.column_bits, 4 * r * c * kTile * kTileWords);
  put(work.block_sums, 4 * std::max(r, c) * dim);
}

// out: where the first thread of a block writes its row and its column of a tile's bits, as offsets in words.
void probe_output(int rows, int columns, int row, int column, int64_t* out) {
  launch(
      "probe",
      +[](SuperTile part, TilePlace at, int64_t* to) {
        const auto base = [](int k) { return reinterpret_cast<uint32_t*>(uintptr_t{1} << (50 + k)); };
        const Decisions decisions{base(0), base(1), base(2)};
        const TileOutput output(decisions, part);
        if (thread_index() != 0) return;
        to[0] = output.row(at) - base(0);
        to[1] = output.column(at) - base(1);
      },
      kDevice, {1}, kTileThreads, 0, SuperTile{0, rows, 0, columns, false}, TilePlace{row, column}, out);
}

// out: tiles of rows, of columns and of columns per task, tasks, programs, buffers, words of counters, and
// bytes of shared memory before the buffers.
void probe_sweep(int rows, int columns, int most_groups, int table_columns, int multiprocessors, int stages,
                 int shared_bytes, int64_t* out) {
  HistogramSide of_rows{}, of_columns{};
  of_rows.side.n = rows;
  of_rows.most_groups = most_groups;
  of_columns.side.n = columns;
  const Device device{nullptr, multiprocessors, stages, shared_bytes};
  const HistogramSweep sweep = HistogramSweep::make(device, of_rows, of_columns, table_columns, 2, true);
  const int64_t all[] = {sweep.row_tiles, sweep.column_tiles, sweep.chunk_tiles, sweep.tasks,
                         sweep.programs,  sweep.stages,       sweep.counters,    histogram_head_bytes()};
  std::copy(std::begin(all), std::end(all), out);
}

// The table's columns of similarities (n,), n a multiple of 8: `found` as kernels find them, or -1 where
// comparing all with the edges gives another column, and `by_rule`. Returns for how many float32 alone gives
// another column.
int64_t probe_columns(double lo, double hi, int64_t bins, const float* s, int64_t n, float* edges, int* found,
                      int* by_rule) {
  const tcm::Bins rule = tcm::Bins::make(lo, hi, bins);
  const BinFinder finder = BinFinder::make(rule);
  launch_bin_edges(kDevice, rule, edges);
  int64_t asked = 0;
  for (int64_t i = 0; i < n; i += 8) {
    float some[8];
    int columns[8], guesses[8];
    std::copy_n(s + i, 8, some);
    find_columns(finder, edges, some, columns);
    std::copy_n(columns, 8, found + i);
    BinFinder never = finder;
    never.clear = 1.0f;
    find_columns(never, edges, some, guesses);
    BinFinder always = finder;
    always.clear = -1.0f;
    find_columns(always, edges, some, columns);
    for (int k = 0; k < 8; ++k) {
      by_rule[i + k] = rule.column(s[i + k]);
      if (columns[k] != found[i + k]) found[i + k] = -1;
      asked += guesses[k] != columns[k];
    }
  }
  return asked;
}

// The transpose of 32 words of bits, in place.
void probe_transpose(uint32_t* words) {
  launch(
      "probe", +[](uint32_t* at) { at[thread_index()] = transposed_bits(at[thread_index()]); }, kDevice, {1},
      32, 0, words);
}

// Norms, ranges of classes and codes of rows (n, dim) of dtype 0: float32, 1: float16, 2: bfloat16, against
// the sorted labels of another side.
const char* probe_prepare(int dtype, const void* x, int n, int dim, int code_dim, const int64_t* order,
                          const int64_t* label, const int64_t* other_label, int others, int32_t* same_begin,
                          int32_t* same_end, float* inverse, float* own_scale, int8_t* code, float* scale,
                          float* error, int* not_finite) {
  return caught([&] {
    Side side{};
    side.x = x;
    side.order = order;
    side.label = label;
    side.same_begin = same_begin;
    side.same_end = same_end;
    side.inverse = inverse;
    side.own_scale = own_scale;
    side.code = code;
    side.scale = scale;
    side.error = error;
    side.n = n;
    Shape shape = shape_of(x, dim, static_cast<Dtype>(dtype));
    shape.code_dim = code_dim;
    prepare(side, shape, static_cast<Dtype>(dtype), other_label, others, not_finite);
  });
}

// Screens rows (n, dim) against columns (m, dim), of which no two are of one class. Writes the candidates'
// bits by row and by column, the directory, and codes, errors and scales of both sides, in whole tiles.
const char* probe_screen(int dtype, const void* x, int n, const void* y, int m, int dim, int code_dim,
                         const double* margins, int8_t* x_code, float* x_error, float* x_scale,
                         int8_t* y_code, float* y_error, float* y_scale, uint32_t* row_bits,
                         uint32_t* column_bits, uint32_t* directory) {
  return caught([&] {
    PreparedSide rows(x, n, 0, x_code, x_error, x_scale), columns(y, m, n, y_code, y_error, y_scale);
    Shape shape = shape_of(x, dim, static_cast<Dtype>(dtype));
    shape.granule = std::min(shape.granule, shape_of(y, dim, static_cast<Dtype>(dtype)).granule);
    shape.code_dim = code_dim;
    int not_finite = 0, has_dense_tile = 0, samples[kSamples] = {};
    prepare(rows.side, shape, static_cast<Dtype>(dtype), columns.label.data(), m, &not_finite);
    prepare(columns.side, shape, static_cast<Dtype>(dtype), rows.label.data(), n, &not_finite);
    const SuperTile part{0, static_cast<int>(tiles_of(n)), 0, static_cast<int>(tiles_of(m)), false};
    const ScreenState state{samples, &has_dense_tile, 0, kTile * kTile, true};
    launch_sweep(kDevice, rows.side, columns.side, shape, margins, part, {row_bits, column_bits, directory},
                 state, 3);
  });
}

// The terms R, C and Ē of the integer comparison in csrc/common/certificate.h.
void probe_rule(float scale_a, float scale_b, int dim, float threshold, const float* error_a,
                const float* error_b, int n, int* least, int* offset, float* at_most) {
  const float inverse = tcm::inverse_scale(scale_a, scale_b);
  *at_most = tcm::errors_at_most(scale_b, std::sqrt(static_cast<float>(dim)));
  for (int i = 0; i < n; ++i) {
    least[i] = tcm::row_threshold(threshold, error_a[i], *at_most, inverse);
    offset[i] = tcm::column_offset(error_b[i], inverse);
  }
}

// Launches of kernels and clearings of memory so far.
int64_t probe_launches() { return tcm::emulator::launches; }
}

// --- single instructions ---

namespace {

// a (16, 32 bytes) times b (8, 32 bytes)ᵀ added to acc (16, 8), through the instructions that tiles use.
template <class Type, class Acc>
void multiply_kernel(const char* a, const char* b, Acc* acc) {
  const SharedArray<char> shared = shared_memory<char>(0);
  const int lane = lane_index();
  // Rows of 128 bytes, of which 32 are used, swizzled so that there are no bank conflicts.
  const auto at = [](int row, int chunk) { return row * 128 + (chunk ^ row % 8) * kChunk; };
  for (int i = lane; i < 24 * 2; i += kWarp) {
    const int row = i / 2, chunk = i % 2;
    copy_async<kChunk>(shared, at(row, chunk), (row < 16 ? a + row * 32 : b + (row - 16) * 32) + chunk * 16,
                       true);
  }
  commit_copies();
  wait_copies<0>();
  sync_warp();
  uint32_t of_a[4], of_b[4];
  load_matrices(of_a, shared, at(lane % 16, lane / 16));
  // Of four matrices b has two, loaded twice.
  load_matrices(of_b, shared, at(16 + lane % 8, lane / 8 % 2));
  Acc sum[4];
  for (int e = 0; e < 4; ++e) sum[e] = acc[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2];
  multiply_add(Type(), sum, of_a, of_b);
  for (int e = 0; e < 4; ++e) acc[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = sum[e];
}

}  // namespace

extern "C" {

// kind 0: int8, 1: bfloat16, 2: float16, 3: TF32.
const char* probe_multiply(int kind, const char* a, const char* b, void* acc) {
  return caught([&] {
    const int bytes = 24 * 128;
    auto* sums = static_cast<float*>(acc);
    if (kind == 0)
      launch("multiply", multiply_kernel<Int8, int32_t>, kDevice, {1}, 32, bytes, a, b, (int32_t*)acc);
    if (kind == 1) launch("multiply", multiply_kernel<BFloat16, float>, kDevice, {1}, 32, bytes, a, b, sums);
    if (kind == 2) launch("multiply", multiply_kernel<Half, float>, kDevice, {1}, 32, bytes, a, b, sums);
    if (kind == 3) launch("multiply", multiply_kernel<Tf32, float>, kDevice, {1}, 32, bytes, a, b, sums);
  });
}

// --- faults that the emulator has to find ---

// Two warps reverse 64 numbers through shared memory. `fault`: 0 none, 1 no barrier, 2 a barrier for one warp
// only, 3 a shuffle without all lanes, 4 an element that is never written, 5 a write out of bounds, 6
// different operations in one warp.
const char* probe_reverse(int fault, const float* in, float* out) {
  return caught([&] {
    launch(
        "reverse",
        +[](int what, const float* from, float* to) {
          const SharedArray<float> shared = shared_memory<float>(0);
          const int t = thread_index();
          if (what != 4 || t != 7) shared[what == 5 && t == 63 ? 64 : t] = from[t];
          if (what == 6 && t % 2 == 0) {
            ballot(true);
          } else if (what == 6) {
            sync_warp();
          }
          if (what != 1 && (what != 2 || t < 32)) sync_block();
          if (what == 3 && t < 16) shuffle(t, 0);
          to[t] = shared[63 - t];
        },
        kDevice, {3}, 64, 64 * 4, fault, in, out);
  });
}

// A warp reverses 32 numbers twice through shared memory. `fault`: 0 none, 1 or 2: without the first or
// second barrier of the warp.
const char* probe_reverse_warp(int fault, const float* in, float* out) {
  return caught([&] {
    launch(
        "reverse_warp",
        +[](int what, const float* from, float* to) {
          const SharedArray<float> shared = shared_memory<float>(0);
          const int t = thread_index();
          shared[t] = from[t];
          if (what != 1) sync_warp();
          const float x = shared[31 - t];
          if (what != 2) sync_warp();
          shared[t] = x;
          sync_warp();
          to[t] = shared[31 - t];
        },
        kDevice, {1}, 32, 32 * 4, fault, in, out);
  });
}

// Two warps count 64 numbers below 4. `fault`: 0 none, 1 a counter that was never written, 2 no barrier
// before the additions, 3 none after them.
const char* probe_add(int fault, const int* in, int* out) {
  return caught([&] {
    launch(
        "add",
        +[](int what, const int* from, int* to) {
          const SharedArray<uint32_t> counters = shared_memory<uint32_t>(0);
          const int t = thread_index();
          if (t < 4 && (what != 1 || t != 3)) counters[t] = 0;
          if (what != 2) sync_block();
          add_shared(counters, from[t], 1);
          if (what != 3) sync_block();
          if (t >= 60) to[t - 60] = static_cast<int>(counters[t - 60]);
        },
        kDevice, {2}, 64, 4 * 4, fault, in, out);
  });
}

// Copies 512 bytes through shared memory, and again by 4 bytes at a time, half of them zeros. `fault`: 0
// none, 1 not waited for, 2 waited for one group too few, 3 no barrier after the wait, 4 matrices loaded with
// bank conflicts.
const char* probe_copy(int fault, const char* in, uint32_t* out) {
  return caught([&] {
    launch(
        "copy",
        +[](int what, const char* from, uint32_t* to) {
          const SharedArray<char> shared = shared_memory<char>(0);
          const int t = thread_index();
          copy_async<16>(shared, t * 16, from + t * 16, true);
          commit_copies();
          for (int b = 0; b < 16; b += 4) copy_async<4>(shared, 512 + t * 16 + b, from + t * 16 + b, b < 8);
          commit_copies();
          if (what != 1) {
            if (what == 2) {
              wait_copies<1>();
            } else {
              wait_copies<0>();
            }
          }
          if (what != 3) sync_warp();
          uint32_t words[4];
          load_matrices(words, shared, what == 4 ? t % 4 * 128 : (t ^ 1) * 16);
          for (int i = 0; i < 4; ++i) to[t * 4 + i] = words[i];
          load_matrices(words, shared, 512 + t * 16);
        },
        kDevice, {1}, 32, 1024, fault, in, out);
  });
}
}
