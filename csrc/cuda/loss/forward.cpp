// The forward: prepare, probe; for each super-tile screen and accumulate; finalize.
//
//   norms        1/norm, and the range of each row's class                   prepare.cuh
//   codes        int8, in label order, one scale per tile                    prepare.cuh
//   probe        candidates of a sample, which decide whether to sweep       screen.cuh
//   sweep        int8 products: pairs are harmless or candidates             screen.cuh
//   dense tiles  tiles with many candidates (or all): every pair decided     dense_tiles.cuh
//   block sums   sums of the unit rows of each tile, for patterns            block_sums.cuh
//   patterns     hard pairs of dense tiles into P and Q, many at a time      patterns.cuh
//   lists        decides other candidates, adds them and listed hard pairs   lists.cuh
//   finalize     partial sums into the result                                finalize.cuh
//
// The launches do not depend on the data, and no number comes back to the host. Kernels see in ScreenState
// whether they have work; lists.cuh sees it in the directory. Sums are bitwise repeatable: tiles are assigned
// to blocks by number, an element of P or Q to one block of a launch, and partial sums are added in order.
#include "forward.h"

#include <algorithm>

namespace tcm::cuda {
namespace {

Side side_of(const SideInput& input, const Workspace::OfSide& work, int64_t n) {
  return {input.x,       input.order,  input.label,        input.self_index, work.same_begin,
          work.same_end, work.inverse, work.own_scale,     work.code,        work.error,
          work.scale,    input.sums,   static_cast<int>(n)};
}

class Forward {
 public:
  Forward(const Device& device, const Plan& plan, Dtype dtype, Precision precision, const SideInput& rows,
          const SideInput& columns, const double* margins, void* workspace)
      : device_(device), plan_(plan), dtype_(dtype), precision_(precision), margins_(margins) {
    work_.carve(plan, workspace);
    rows_ = side_of(rows, work_.of_rows, plan.rows);
    columns_ = side_of(columns, work_.of_columns, plan.columns);
    shape_ = shape_of(rows.x, plan.dim, dtype);
    shape_.granule = std::min(shape_.granule, shape_of(columns.x, plan.dim, dtype).granule);
    shape_.code_dim = plan.code_dim();
  }

  void run(const Result& result) {
    clear_bytes(device_, work_.samples, work_.zeroed);
    prepare(rows_, columns_);
    if (!plan_.is_self) prepare(columns_, rows_);
    if (plan_.screened) launch_probe(device_, rows_, columns_, shape_, margins_, work_.samples);
    for (size_t number = 0; number < plan_.parts.size(); ++number) visit(plan_.parts[number], number);
    launch_finalize(device_, work_.partial, plan_.partials(), work_.not_finite, margins_, result.sums,
                    result.counts, result.nan_flag);
  }

 private:
  void prepare(const Side& side, const Side& other) {
    launch_norms(device_, dtype_, side, shape_, other.label, other.n, work_.not_finite);
    if (plan_.screened) launch_codes(device_, dtype_, side, shape_);
  }

  void visit(const SuperTile& part, size_t number) {
    const ScreenState state{work_.samples, work_.has_dense_tile + number, plan_.max_candidates,
                            plan_.list_most, plan_.screened};
    uint32_t* column_bits = part.diagonal ? work_.row_bits : work_.column_bits;
    const Decisions decisions{work_.row_bits, column_bits, work_.directory};
    if (plan_.screened) {
      launch_sweep(device_, rows_, columns_, shape_, margins_, part, decisions, state, plan_.programs);
    }
    launch_dense_tiles(device_, dtype_, precision_, rows_, columns_, shape_, margins_, part, decisions, state,
                       plan_.is_self ? 2 : 1, plan_.programs, work_.partial);

    const Direction by_row{part.row,       part.rows,       part.column,  part.columns,
                           work_.row_bits, work_.directory, part.columns, 1};
    accumulate_into(rows_, columns_, by_row, state, plan_.is_self && !part.diagonal ? 2 : 1);
    if (plan_.by_column && !part.diagonal) {
      const Direction by_column{part.column,       part.columns,    part.row, part.rows,
                                work_.column_bits, work_.directory, 1,        part.columns};
      accumulate_into(columns_, rows_, by_column, state, 0);
    }
  }

  // Adds a super-tile's hard pairs to P and Q of one side, and penalties of candidates to the partial sums.
  void accumulate_into(const Side& own, const Side& other, const Direction& direction,
                       const ScreenState& state, int weight) {
    if (own.sums.positive != nullptr) {
      launch_patterns(device_, dtype_, precision_, own, other, shape_, direction, state, work_.block_sums);
    }
    const Partial of_lists{work_.partial.sums + 2 * plan_.programs,
                           work_.partial.counts + 2 * plan_.programs};
    launch_lists(device_, dtype_, own, other, shape_, direction, margins_, state, weight, of_lists);
  }

  Device device_;
  const Plan& plan_;
  Dtype dtype_;
  Precision precision_;
  const double* margins_;
  Workspace work_;
  Side rows_, columns_;
  Shape shape_;
};

}  // namespace

void forward(const Device& device, const Plan& plan, Dtype dtype, Precision precision, const SideInput& rows,
             const SideInput& columns, const double* margins, void* workspace, const Result& result) {
  Forward(device, plan, dtype, precision, rows, columns, margins, workspace).run(result);
}

}  // namespace tcm::cuda
