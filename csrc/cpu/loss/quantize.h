// Codes of rows, whose products are faster than those of the rows: their format, encoding and products.
//
//   int8       |q| <= 127 where the processor multiplies 8-bit integers exactly and fast (VNNI, AMX);
//              |q| <= 64 on other x86 processors, whose 16-bit intermediate sums would saturate beyond
//   bfloat16   on 64-bit Arm processors with units for it, under Linux
//   none       elsewhere: tiles and centroids are multiplied in the compute dtype
//
// Forward and backward with full precision instead of codes, on a Xeon, 8192 x 512: with |q| <= 64 and all
// libraries held to AVX2, 1.50 times as long where classes are pairs, 0.90 times with four samples a class,
// whose centroids do most of the work; with bfloat16 and AMX 1.86 and 1.46 times. No Arm processor has been
// measured. (benchmarks/results/ablation-7-bit-codes.json, ablation-bfloat16-codes.json)
//
// Products are int32 in any case. Those of bfloat16 codes are converted to multiples of 2^-22. A bfloat16
// code thus has the scale 2^-11, and all further steps are the same as for int8.
#pragma once

#include <string>

#include "cpu/simd/simd.h"
#include "plan.h"

namespace tcm::cpu {

// The coding for this machine, tried out at the first call; TCM_KERNELS_CPU_SCREENING ("full", "int8",
// "bfloat16") restricts the choice.
Coding machine_coding();

// Its name, as `tcm-kernels doctor` prints it.
std::string coding_name();

// Writes the code of a unit row in the format of plan.coding; `code` has plan.code_bytes().
template <class T>
RowCode encode(const Plan& plan, const T* unit, void* code);

// The error e of a given code and scale for the row `unit`.
template <class T>
float error_of_code(const Plan& plan, const T* unit, const void* code, float scale);

// out[k] = c q_k, the row (D) that a code of scale c stands for.
template <class T>
void decode(const Plan& plan, const void* code, float scale, T* out);

// products (rows, columns) = x rᵀ over the first `width` elements of each code.
void multiply_codes(const Plan& plan, const void* x, int64_t rows, const void* r, int64_t columns,
                    int64_t width, int32_t* products);

}  // namespace tcm::cpu
