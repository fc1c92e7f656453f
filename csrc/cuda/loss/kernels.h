// The launches, one function a kernel: what host code sees of the .cu files. All of them take device
// pointers, queue their work on the device's stream and return; they throw std::runtime_error, with the
// kernel's name, where a launch fails.
#pragma once

#include "cuda/device/launch.h"
#include "decisions.h"

namespace tcm::cuda {

// Norms of a side's rows, and own_scale where something is screened; sets not_finite where a norm is not. With
// labels, also where the rows' classes stand on the other side, whose (others,) sorted labels are given.
void launch_norms(const Device& device, Dtype dtype, const Side& side, const Shape& shape,
                  const int64_t* other_label, int others, int* not_finite);

// Codes of a side's rows, after its norms.
void launch_codes(const Device& device, Dtype dtype, const Side& side, const Shape& shape);

// Candidates in kSamples tiles, one number each.
void launch_probe(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, int* samples);

// Candidates of a super-tile, by `programs` blocks.
void launch_sweep(const Device& device, const Side& rows, const Side& columns, const Shape& shape,
                  const double* margins, const SuperTile& part, const Decisions& to, const ScreenState& state,
                  int64_t programs);

// Hard pairs of the tiles that are decided in full precision. `weight`: how many ordered pairs a pair off the
// diagonal stands for. `partial` has an element a program.
void launch_dense_tiles(const Device& device, Dtype dtype, Precision precision, const Side& rows,
                        const Side& columns, const Shape& shape, const double* margins, const SuperTile& part,
                        const Decisions& to, const ScreenState& state, int weight, int64_t programs,
                        const Partial& partial);

// Hard pairs of decided tiles that are many, into P and Q of the own side. block_sums: (other tiles, dim).
void launch_patterns(const Device& device, Dtype dtype, Precision precision, const Side& own,
                     const Side& other, const Shape& shape, const Direction& direction,
                     const ScreenState& state, float* block_sums);

// All others, one by one; candidates are decided. `weight`: how many ordered pairs a candidate stands for, 0
// where its penalty is counted elsewhere. `partial` has list_blocks(rows of a super-tile) elements.
void launch_lists(const Device& device, Dtype dtype, const Side& own, const Side& other, const Shape& shape,
                  const Direction& direction, const double* margins, const ScreenState& state, int weight,
                  const Partial& partial);
int64_t list_blocks(int64_t rows);

// Results (2,) and the nan_flag, from `blocks` partial sums.
void launch_finalize(const Device& device, const Partial& partial, int64_t blocks, const int* not_finite,
                     const double* margins, double* sums, int64_t* counts, double* nan_flag);

// Gradient (n, dim) of a side's rows x (n, dim) from their P and Q.
void launch_normalize_backward(const Device& device, Dtype dtype, const void* x, const PartnerSums& sums,
                               const double* nan_flag, const double* grad_sums, int ordered, void* grad,
                               int n, const Shape& shape);

}  // namespace tcm::cuda
