// The launches, one function per kernel (launch_patterns has two): what host code sees of the .cu files. They
// take device pointers, queue their work on the device's stream and return; they throw std::runtime_error,
// with the kernel's name, where a launch fails.
#pragma once

#include "cuda/device/launch.h"
#include "decisions.h"

namespace tcm::cuda {

// Norms of a side's rows, and own_scale with screening; sets not_finite where a norm is not finite. With
// labels, also the ranges of the rows' classes in the other side's sorted labels (others,).
void launch_norms(const Device& device, Dtype dtype, const Side& side, const Shape& shape,
                  const int64_t* other_label, int others, int* not_finite);

// Codes of a side's rows, with their errors and scales; after the norms.
void launch_codes(const Device& device, Dtype dtype, const Side& side, const Shape& shape);

// The number of candidates of two classes in each of kSamples tiles.
void launch_probe(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, int* samples);

// Candidates of a super-tile, by `programs` blocks.
void launch_sweep(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, const SuperTile& part, const Decisions& to, const ScreenState& state,
                  int64_t programs);

// Hard pairs of the tiles that are decided in full precision. `weight`: how many ordered pairs a pair outside
// the tiles of the diagonal stands for. `partial` has one element per program.
void launch_dense_tiles(const Device& device, Dtype dtype, Precision precision, const Side& rows,
                        const Side& columns, const Shape& shape, const double* margins, const SuperTile& part,
                        const Decisions& to, const ScreenState& state, int weight, int64_t programs,
                        const Partial& partial);

// Adds hard pairs of decided tiles, except lists, to P and Q of the own side. block_sums: (other tiles, dim).
void launch_patterns(const Device& device, Dtype dtype, Precision precision, const Side& own,
                     const Side& other, const Shape& shape, const Direction& direction,
                     const ScreenState& state, float* block_sums);

// Decides candidates and adds all other hard pairs, one by one. `weight`: ordered pairs per candidate, 0
// where its penalty is counted elsewhere. `partial` has list_blocks(rows of a super-tile) elements.
void launch_lists(const Device& device, Dtype dtype, const Side& own, const Side& other, const Shape& shape,
                  const Direction& direction, const double* margins, const ScreenState& state, int weight,
                  const Partial& partial);
int64_t list_blocks(int64_t rows);

// The sums (2,), counts (2,) and nan_flag, from `blocks` partial sums.
void launch_finalize(const Device& device, const Partial& partial, int64_t blocks, const int* not_finite,
                     const double* margins, double* sums, int64_t* counts, double* nan_flag);

// Gradient (n, dim) of a side's rows x (n, dim) from their P and Q; `ordered` is 2 in the self case, else 1.
void launch_normalize_backward(const Device& device, Dtype dtype, const void* x, const PartnerSums& sums,
                               const double* nan_flag, const double* grad_sums, int ordered, void* grad,
                               int n, const Shape& shape);

}  // namespace tcm::cuda
