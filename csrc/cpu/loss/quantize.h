// What rows are coded in, so that a product of codes is faster than one of the rows: encoding, and products.
//
//   int8       |q| <= 127 where the processor multiplies 8-bit integers exactly and fast (VNNI, AMX);
//              |q| <= 64 on other x86 processors, whose 16-bit intermediate sums would saturate beyond
//   bfloat16   where there are units for that alone
//   none       elsewhere: tiles are multiplied in the compute dtype
//
// Products are int32 in any case. bfloat16 ones are brought to multiples of 2^-22, so that the code of a
// bfloat16 row has the scale 2^-11 and all that follows is one and the same.
#pragma once

#include <string>

#include "cpu/simd/simd.h"
#include "plan.h"

namespace tcm::cpu {

// What this machine can do, found by trying it at the first call; TCM_KERNELS_CPU_SCREENING ("full", "int8",
// "bfloat16") restricts the choice.
Coding machine_coding();

// As the doctor shows it.
std::string coding_name();

// Codes a unit row as plan.coding asks; `code` is one row of plan.code_bytes().
template <class T>
RowCode encode(const Plan& plan, const T* unit, void* code);

// The error of that code (its scale given) for another row.
template <class T>
float error_of_code(const Plan& plan, const T* unit, const void* code, float scale);

// out[k] = what element k of a code stands for.
template <class T>
void decode(const Plan& plan, const void* code, float scale, T* out);

// products (rows, columns) of the first `width` elements of codes.
void multiply_codes(const Plan& plan, const void* x, int64_t rows, const void* r, int64_t columns,
                    int64_t width, int32_t* products);

}  // namespace tcm::cpu
