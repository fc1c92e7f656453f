// THE certificate of screening: how far a product of codes can be from the similarity. Written once, for C++
// and CUDA alike.
//
// A unit row u (as packed, in the compute dtype) is coded as u = c q + ρ with q int8 and c a float32, and
// e >= ‖ρ‖ is kept beside it. For two rows, with c_i q_i = u_i - ρ_i,
//
//   u_i·u_j - c_i c_j (q_i·q_j) = u_i·ρ_j + ρ_i·u_j - ρ_i·ρ_j,
//
// so by Cauchy-Schwarz its absolute value is at most ‖u_i‖ e_j + e_i ‖u_j‖ + e_i e_j.
//
// In floating point: any integer q is valid, because ρ is computed from it afterwards, in float64, where c q
// is exact (24 + 7 bits). kRoundUp covers the rounding of Σρ² (D · 2^-53 relative) and of the square root,
// the rounding of e to float32 (2^-24), and ‖u‖ <= 1 + 2^-20 in place of 1. kSlack covers the rest: the
// evaluation of c_i c_j (q_i·q_j) and of the bound in float32, at most six roundings of numbers that are
// under 2 where they decide anything (1e-6 even where the e of a class makes them 5), and a mean of unit rows
// whose length exceeds 1 by the rounding of its sum (2e-7 at the largest D). q_i·q_j itself is exact in int32
// while D <= kLargestDim. A row whose scale would be under kSmallestScale is coded as q = 0, c = 0, e = ‖u‖,
// for which the bound holds as well.
//
// Rows may also share a scale. On the GPU the 128 rows of a tile share c = (their largest |element|) / 127.
// In the product of two tiles c_a c_b is then one number, and the bound of each pair costs one comparison of
// integers. With P = q_i·q_j, a pair of two classes is harmless where c_a c_b P + e_i + e_j + e_i e_j +
// kSlack is below m-. Replace e_i e_j by e_i Ē_b, where Ē_b (errors_at_most) is at least every e_j of the
// tile and known from its scale alone, and divide by c_a c_b. That separates a column term from a row term:
//
//   P + C_j < R_i,   C_j >= e_j / (c_a c_b),   R_i <= (m- - kSlack - e_i (1 + Ē_b)) / (c_a c_b),
//
// C_j rounded up (column_offset) and R_i rounded down (row_threshold) to an integer. The sum of products
// starts at C_j instead of 0, and a pair whose sum is below R_i is harmless. In floating point: 1 / (c_a c_b)
// carries two roundings of 2^-24, and each term two or three more; the factors 1e-6 and 2e-6 and the 1 that
// is added or subtracted exceed them. kSlack covers the roundings of the bracket.
//   Ē_b: an element is off by c/2, and by less than 0.01 c more for the float32 arithmetic that found its
// code (three roundings of a number up to 127, and one of the sum), so e_j <= 0.51 c √D. Where the scale of a
// tile would be under kSmallestTileScale, its codes and its scale are 0, and e_j = ‖u_j‖ <= 127 · 1e-6 √D up
// to rounding. Rows of length 1 have c >= 1 / (127 √D) > 4e-5, so this concerns only rows that normalisation
// left short, and loses nothing. Every P + C_j stays within 2^30: for D <= kLargestScreenedDim,
// |P| <= 127² D < 5.3e8, and C_j <= 0.51 √D / c_a + 2 < 9.3e7.
//
// Several rows may share one code: the bound needs only e >= ‖u - c q‖ of each of them, not their best q.
//
// A row may also be coded in bfloat16: c q is the rounded row, with c = 2^-11. Such products are added up in
// float32, rounded to bfloat16 (2^-8 of their size, which is under 1.01) and truncated to a multiple of
// 2^-22. That error, bfloat16_product_error(D), is divided between the e of the two rows. It counts the
// rounding of float32 sums twice, for processors that truncate them instead of rounding.
//
// Without any such code, the rows of a class share a row m of the compute dtype (c q = m), and the other side
// is not coded. The product is rounded by at most product_error(D) ‖m‖ ‖u_j‖ in any order of its D terms
// (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); this is part of e as well.
#pragma once

#include "hard_pair.h"

namespace tcm {

constexpr int kCodeLimit = 127;
constexpr int kHalfCodeLimit = 64;  // for sums of two products in 16 bits: 2 · 64 · 255 < 2^15

constexpr long kLargestDim = 131072;  // 127² · 2^17 < 2^31
constexpr double kRoundUp = 1.0 + 4e-6;
constexpr float kRoundUpTiny = 1e-37f;  // covers an e so small that float32 rounds it coarsely
constexpr float kSlack = 2e-6f;
constexpr float kSmallestScale = 1e-30f;  // keeps 1 / c and c q in the normal float32 range

// What is stored beside the code q of a row.
struct RowCode {
  float scale;  // c
  float error;  // e, rounded up
};

// e from ‖ρ‖², summed in float64.
static inline TCM_HOST_DEVICE float round_up_error(double square) {
  return static_cast<float>(sqrt(square) * kRoundUp) + kRoundUpTiny;
}

// The largest error of an inner product of D terms in precision T, for rows of length 1.
template <class T>
static inline float product_error(long dim) {
  const double unit_roundoff = sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53;
  const double n = static_cast<double>(dim) * unit_roundoff;
  return static_cast<float>(n / (1.0 - n) * kRoundUp) + kRoundUpTiny;
}

// The largest difference between the similarity of two rows and the scaled product of their codes.
// error_j is one number or a vector of lanes.
template <class Lanes>
static inline TCM_HOST_DEVICE Lanes similarity_error(float error_i, Lanes error_j) {
  return error_j + error_i * error_j + (error_i + kSlack);
}

// The largest error of a product of bfloat16 rows that is rounded to bfloat16 and truncated, see above.
static inline float bfloat16_product_error(long dim) {
  return 1.02f * 0x1p-8f + 2.04f * product_error<float>(dim) + 0x1p-22f;
}

constexpr float kBfloat16Scale = 0x1p-11f;

// For tiles of rows that share a scale, see above.
constexpr long kLargestScreenedDim = 32768;
constexpr float kSmallestTileScale = 1e-6f;
constexpr float kShortTile = 128e-6f;          // times √D: no row of a tile without a scale is longer
constexpr float kInverseOfNoScale = 0x1p20f;   // without a scale: every P is 0, any number would do
constexpr float kFarthestThreshold = 0x1p30f;  // beyond every P + C_j

// 1 / (c_a c_b).
static inline TCM_HOST_DEVICE float inverse_scale(float scale_a, float scale_b) {
  const float product = scale_a * scale_b;
  return product > 0.0f ? 1.0f / product : kInverseOfNoScale;
}

// Ē: no row of a tile of this scale has a larger error.
static inline TCM_HOST_DEVICE float errors_at_most(float scale, float root_dim) {
  const float of_element = 0.51f * scale;
  return root_dim * (of_element > kShortTile ? of_element : kShortTile);
}

// C_j.
static inline TCM_HOST_DEVICE int column_offset(float error, float inverse) {
  return static_cast<int>(ceilf(error * inverse * (1.0f + 1e-6f))) + 1;
}

// R_i; where the threshold is not a number, no pair is proven harmless.
static inline TCM_HOST_DEVICE int row_threshold(float threshold_minus, float error, float errors_of_columns,
                                                float inverse) {
  const float x = (threshold_minus - kSlack - error * (1.0f + errors_of_columns)) * inverse;
  const float least = floorf(x - fabsf(x) * 2e-6f - 1.0f);
  if (!(least > -kFarthestThreshold)) return -static_cast<int>(kFarthestThreshold);
  return static_cast<int>(least < kFarthestThreshold ? least : kFarthestThreshold);
}

}  // namespace tcm
