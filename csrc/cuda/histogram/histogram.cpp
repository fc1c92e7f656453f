// The histogram: norms, edges of the bins, then one full sweep of rows over columns, or two.
//
// A pair counts for the groups of both ends, but a sweep only credits the row's group. In the self case row i
// of (i, j) is also the column of (j, i): a pair of two groups counts twice, one within a group once. Between
// two sets, a second sweep with the sides exchanged credits pairs of two groups to the columns' groups.
#include "histogram.h"

#include <algorithm>
#include <cmath>

#include "cuda/device/tile_memory.h"

namespace tcm::cuda {
namespace {

constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kReservedBytes = 1024;  // shared memory that CUDA reserves per block
constexpr int kTasksPerProgram = 16;  // so that few blocks are idle during the last tasks
constexpr int kFewestTiles = 16;      // per task, about: fewer do not repay writing out its counters

}  // namespace

BinFinder BinFinder::make(const Bins& bins) {
  const double scale = bins.count / bins.width, offset = -bins.lo * scale - 0.5;
  const auto rounded_scale = static_cast<float>(scale), rounded_offset = static_cast<float>(offset);
  // Similarities of unit rows are below 1.01. `error` bounds the rounding of factors, result and rule.
  const double size = 1.01 * scale + std::fabs(offset);
  const double error = 1.01 * std::fabs(rounded_scale - scale) + std::fabs(rounded_offset - offset) +
                       size * (0x1p-24 + 0x1p-48);
  const double clear = 0.5 - 1.01 * error;
  // In a range so narrow that float32 overflows, the error is infinite or NaN.
  return {rounded_scale, rounded_offset, clear > 0.0 ? static_cast<float>(clear) : -1.0f, bins.columns()};
}

HistogramSweep HistogramSweep::make(const Device& device, const HistogramSide& rows,
                                    const HistogramSide& columns, int table_columns, int weight,
                                    bool inside) {
  HistogramSweep sweep{};
  sweep.row_tiles = static_cast<int>(tiles_of(rows.side.n));
  sweep.column_tiles = static_cast<int>(tiles_of(columns.side.n));
  sweep.weight = weight;
  sweep.inside = inside;

  const int64_t most_programs = int64_t{kBlocksPerMultiprocessor} * device.multiprocessors;
  const int64_t wanted = ceil_div(kTasksPerProgram * most_programs, std::max(sweep.row_tiles, 1));
  const int64_t chunks = std::clamp<int64_t>(wanted, 1, ceil_div(sweep.column_tiles, kFewestTiles));
  sweep.chunk_tiles = static_cast<int>(ceil_div(sweep.column_tiles, std::max<int64_t>(chunks, 1)));
  const int64_t tasks =
      sweep.column_tiles == 0 ? 0 : sweep.row_tiles * ceil_div(sweep.column_tiles, sweep.chunk_tiles);
  sweep.tasks = static_cast<int>(tasks);
  sweep.programs = static_cast<int>(std::min(tasks, most_programs));

  // Four buffers where 16-bit counters of all groups, for pairs of two classes, still fit beside them.
  const int of_block = device.shared_bytes / kBlocksPerMultiprocessor - kReservedBytes;
  const auto room = [&](int stages) {
    return std::max<int64_t>(of_block - shared_bytes(histogram_head_bytes(), stages), 0) / 4;
  };
  const int64_t needed = int64_t{rows.most_groups} * ceil_div(table_columns, 2);
  sweep.stages = device.stages == kMostStages && room(kMostStages) >= needed ? kMostStages : kFewestStages;
  sweep.counters =
      static_cast<int>(std::min(room(sweep.stages), 2 * int64_t{rows.most_groups} * table_columns));
  return sweep;
}

void pair_histogram(const Device& device, Dtype dtype, Precision precision, const Bins& bins,
                    const HistogramSide& rows, const HistogramSide& columns, bool is_self, int64_t dim,
                    float* edges, int* not_finite, const HistogramTables& tables) {
  Shape shape = shape_of(rows.side.x, dim, dtype);
  shape.granule = std::min(shape.granule, shape_of(columns.side.x, dim, dtype).granule);
  launch_norms(device, dtype, rows.side, shape, nullptr, 0, not_finite);
  if (!is_self) launch_norms(device, dtype, columns.side, shape, nullptr, 0, not_finite);
  launch_bin_edges(device, bins, edges);
  const BinFinder finder = BinFinder::make(bins);
  const auto sweep = [&](const HistogramSide& own, const HistogramSide& other, int weight, bool inside) {
    launch_histogram(device, dtype, precision, own, other, shape, finder, edges, tables,
                     HistogramSweep::make(device, own, other, tables.columns, weight, inside));
  };
  sweep(rows, columns, is_self ? 2 : 1, true);
  if (!is_self) sweep(columns, rows, 1, false);
}

}  // namespace tcm::cuda
