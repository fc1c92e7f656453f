#include "centroids.h"

#include <algorithm>

#include "cpu/torch_shim.h"
#include "quantize.h"

namespace tcm::cpu {

int64_t count_classes(const Plan& plan, const SuperTile& super, const Workspace& work) {
  const LabelledRow* order = work.row_order + super.row_tile * plan.tile;
  int64_t count = 0;
  for (int64_t r = 0; r < super.rows(plan); ++r) {
    count += r % plan.tile == 0 || order[r].label != order[r - 1].label;
  }
  return count;
}

template <class T>
RowCode quantize_centroid(const Plan& plan, const PackedRows& packed, int64_t first, int64_t last, T* mean,
                          void* code) {
  const Simd<T>& loops = simd<T>();
  const int64_t dim = plan.dim;
  const auto unit = [&](int64_t r) { return static_cast<const T*>(packed.unit) + r * dim; };
  std::fill_n(mean, dim, T(0));
  for (int64_t r = first; r < last; ++r) loops.add(mean, unit(r), dim);
  const double share = 1.0 / double(last - first);
  T* centre = plan.codes() ? mean : static_cast<T*>(code);
  loops.scale(mean, share, centre, dim);
  const float scale = plan.codes() ? encode(plan, mean, code).scale : 1.0f;
  float error = 0;
  for (int64_t r = first; r < last; ++r) {
    error = std::max(
        error, plan.codes() ? error_of_code(plan, unit(r), code, scale)
                            : round_up_error(loops.distance(unit(r), centre, dim)) + product_error<T>(dim));
  }
  return {scale, error};
}

template <class T>
void quantize_centroids(const Plan& plan, const ScreeningPlan& screening, const SuperTile& super,
                        const Workspace& work) {
  const PackedRows& packed = work.packed_rows;
  const Centroids& centroids = packed.centroids;
  const LabelledRow* order = work.row_order + super.row_tile * plan.tile;
  for_each_task(super.row_count, plan.threads, [&](int64_t block, int64_t worker) {
    const int64_t first = block * plan.tile, last = first + block_rows(plan, super, block);
    const int64_t most = (last - first) / 2;
    int32_t* begin = centroids.begin + block * (plan.max_centroids() + 1);
    int64_t count = 0;
    for (int64_t r = first; r < last && count <= most; ++r) {
      if (r == first || order[r].label != order[r - 1].label) begin[count++] = int32_t(r - first);
    }
    centroids.count[block] = count > most ? 0 : int32_t(count);
    if (count > most) return;
    begin[count] = int32_t(last - first);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t at = block * plan.max_centroids() + k, from = first + begin[k], to = first + begin[k + 1];
      void* code = static_cast<char*>(centroids.code) + at * plan.centroid_bytes();
      const RowCode row =
          quantize_centroid<T>(plan, packed, from, to, work.row_scratch<T>(plan, worker), code);
      centroids.scale[at] = row.scale;
      centroids.error[at] = row.error;
      if (screening.has_prefix(plan)) {
        centroids.tail[at] = *std::max_element(packed.tail + from, packed.tail + to);
      }
    }
  });
}

#define TCM_INSTANTIATE(T)                                                                            \
  template RowCode quantize_centroid<T>(const Plan&, const PackedRows&, int64_t, int64_t, T*, void*); \
  template void quantize_centroids<T>(const Plan&, const ScreeningPlan&, const SuperTile&, const Workspace&);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
