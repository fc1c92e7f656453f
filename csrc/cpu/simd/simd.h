// The inner loops, compiled once per instruction set and chosen at run time, so that one binary serves every
// x86-64 processor. Other architectures have the baseline alone. The loops are written for vectors of any
// width and gathered in kernels.h, which baseline.cpp, avx2.cpp, avx512.cpp and avx512_vnni.cpp compile.
#pragma once

#include <cstdint>

#include "common/bins.h"
#include "common/certificate.h"
#include "common/hard_pair.h"

namespace tcm::cpu {

// The hard pairs of one sign in a tile, or in all.
struct HardPairs {
  int64_t count;
  double similarity_sum;
  bool deferred;  // whether `accumulate` computes the sum
};

// What a tile adds to the loss.
struct TileSums {
  HardPairs positive;
  HardPairs negative;

  HardPairs& of(bool is_positive) { return is_positive ? positive : negative; }
  const HardPairs& of(bool is_positive) const { return is_positive ? positive : negative; }
};

// Columns of one tile row. Only [first, last) are pairs. [same_begin, same_end) are of the row's class: one
// run, because both sides are sorted by label; it may reach outside [first, last).
struct RowSpan {
  int64_t first;
  int64_t last;
  int64_t same_begin;
  int64_t same_end;

  bool same(int64_t column) const { return column >= same_begin && column < same_end; }
  // The bits of word w of a bit map that are pairs.
  uint64_t pair_bits(int64_t w) const { return below(last - w * 64) & ~below(first - w * 64); }
  // The bits of word w of a bit map that are columns of the row's class.
  uint64_t same_bits(int64_t w) const { return below(same_end - w * 64) & ~below(same_begin - w * 64); }

 private:
  static uint64_t below(int64_t n) { return n <= 0 ? 0 : n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1; }
};

// Two sets among 64 pairs; `surely` is a subset of `may`.
struct Certified {
  uint64_t may;
  uint64_t surely;
};

// For pattern_product: the most columns that it processes at a time, and the elements of its tables.
constexpr int64_t kPatternPanel = 32;
constexpr int64_t kPatternScratch = 16 * 16 * kPatternPanel;

template <class T>
struct Simd {
  // Sets bit c of `bits` for every hard pair of the row s[0 .. last), clears all others up to the end of the
  // last 64-bit word, and adds the row to `sums`. s is readable up to that end.
  void (*scan_row)(const T* s, RowSpan span, Margins<T> margins, uint64_t* bits, TileSums* sums);
  // For a row of products of codes q[0 .. last): sets the bits of the candidates, clears all others, and
  // returns the number of candidates. These are the pairs of two classes with q >= threshold and all pairs of
  // one class. q is readable up to the end of the last word.
  int64_t (*scan_codes)(const int32_t* q, RowSpan span, int32_t threshold, uint64_t* bits);
  // The same for a row of inner products in the compute dtype.
  int64_t (*scan_products)(const T* s, RowSpan span, T threshold, uint64_t* bits);
  // From products of codes with 64 columns, by each pair's own bound: whose similarity may be at least
  // `similarity`, and whose surely is. scale and error are those of the columns.
  Certified (*certify)(const int32_t* q, RowCode row, const float* scale, const float* error,
                       float similarity);
  // The int8 code, |q| <= limit, of a unit row of n elements; `code` has `padded` elements, 0 from n on.
  RowCode (*encode)(const T* u, int64_t n, int64_t padded, int limit, int8_t* code);
  // The same in bfloat16, rounded to nearest.
  void (*encode_bfloat16)(const T* u, int64_t n, int64_t padded, uint16_t* code);
  // out[k] = q[k] · 2^22, truncated, for bfloat16 |q| < 2^9; q may be the upper half of out.
  void (*widen_products)(const uint16_t* q, int64_t n, int32_t* out);
  // ‖u - scale * code‖², in float64.
  double (*code_distance)(const T* u, const int8_t* code, float scale, int64_t n);
  // ‖u - code‖², in float64, for a bfloat16 code.
  double (*bfloat16_distance)(const T* u, const uint16_t* code, int64_t n);
  // ‖u - v‖², in float64.
  double (*distance)(const T* u, const T* v, int64_t n);
  // out = pattern · rows for a pattern (own, words): row i of out (own, width) is the sum of the rows
  // (others, width) whose bits are set in row i of the pattern. May write columns of out up to the next
  // multiple of kPatternPanel. `scratch` has room for kPatternScratch + own * kPatternPanel elements.
  void (*pattern_product)(const uint64_t* pattern, int64_t words, int64_t own, const T* rows,
                          int64_t row_stride, int64_t others, int64_t width, T* scratch, T* out,
                          int64_t out_stride);
  // Inner product in T; the order of its terms depends on n and the instruction set alone.
  T (*dot)(const T* x, const T* y, int64_t n);
  // Inner products of x with rows index[0 .. count) of a matrix of n columns, each bit for bit as by `dot`.
  void (*dots)(const T* x, const T* rows, const int32_t* index, int64_t count, int64_t n, T* out);
  // out = products of the int8 code x with rows index[0 .. count) of a matrix of codes; n, its number of
  // columns, is a multiple of 64.
  void (*code_dots)(const int8_t* x, const int8_t* codes, const int32_t* index, int64_t count, int64_t n,
                    int32_t* out);
  // Sum of squares, in float64.
  double (*squared_norm)(const T* x, int64_t n);
  // out = x * factor, multiplied in float64.
  void (*scale)(const T* x, double factor, T* out, int64_t n);
  // acc += x, in float64
  void (*add_wide)(double* acc, const T* x, int64_t n);
  // acc -= x
  void (*subtract)(T* acc, const T* x, int64_t n);
  // acc += x
  void (*add)(T* acc, const T* x, int64_t n);
  // Gradient through the normalisation of a raw row x: with g = w_p * p + w_q * q and u = x * inverse,
  //   out = (g - (tangent ? (g·u) u : 0)) * inverse,   in float64.
  void (*normalize_backward)(const T* x, const T* p, const T* q, double w_p, double w_q, double inverse,
                             bool tangent, T* out, int64_t n);
  // The column of the histogram that each similarity falls into.
  void (*bin_columns)(const T* s, int64_t n, const Bins& bins, uint16_t* columns);
  // columns[i] += amount, or = value, where ids[i] == id.
  void (*add_where_equal)(const int32_t* ids, int32_t id, uint16_t amount, int64_t n, uint16_t* columns);
  void (*set_where_equal)(const int32_t* ids, int32_t id, uint16_t value, int64_t n, uint16_t* columns);
};

extern const Simd<float> simd_baseline_f32;
extern const Simd<double> simd_baseline_f64;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TCM_X86_SIMD 1
extern const Simd<float> simd_avx2_f32;
extern const Simd<double> simd_avx2_f64;
extern const Simd<float> simd_avx512_f32;
extern const Simd<double> simd_avx512_f64;
extern const Simd<float> simd_avx512_vnni_f32;
extern const Simd<double> simd_avx512_vnni_f64;
#endif

// The widest instruction set this processor runs, or the one that TCM_KERNELS_CPU_ISA names ("baseline",
// "avx2", "avx512", "avx512_vnni") where the processor runs that. The variable is read once.
const char* simd_name();

template <class T>
const Simd<T>& simd();
template <>
const Simd<float>& simd<float>();
template <>
const Simd<double>& simd<double>();

}  // namespace tcm::cpu
