#include "histogram.cuh"

namespace tcm::cuda {

int histogram_head_bytes() { return kHistogramHead; }

void launch_bin_edges(const Device& device, const Bins& bins, float* edges) {
  launch("bin_edges", bin_edges_kernel, device, {ceil_div(int64_t{bins.columns()} + 1, kEdgeThreads)},
         kEdgeThreads, 0, bins, edges);
}

void launch_histogram(const Device& device, Dtype dtype, Precision precision, const HistogramSide& rows,
                      const HistogramSide& columns, const Shape& shape, const BinFinder& finder,
                      const float* edges, const HistogramTables& tables, const HistogramSweep& sweep) {
  const int shared = shared_bytes(kHistogramHead, sweep.stages) + 4 * sweep.counters;
  const auto run = [&](auto kernel) {
    launch("histogram", kernel, device, {sweep.programs}, kTileThreads, shared, rows, columns, shape, finder,
           edges, tables, sweep);
  };
  switch (dtype) {
    case Dtype::bfloat16: return run(histogram_kernel<BFloat16Product, BFloat16>);
    case Dtype::float16: return run(histogram_kernel<HalfProduct, Half>);
    case Dtype::float32:
      return precision == Precision::highest ? run(histogram_kernel<Float32Product, float>)
                                             : run(histogram_kernel<Tf32Product, float>);
  }
}

}  // namespace tcm::cuda
