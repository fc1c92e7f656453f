// The inner loops of simd.h, compiled once per instruction set. The including file sets the target,
// TCM_SIMD_NAME and TCM_VECTOR_BYTES first, and TCM_VNNI where the target has it. The linker must not share
// code of a wide target with a narrow one. So all loops and the functions of csrc/common that they call have
// internal linkage. The exceptions are the members of Bins: inline with external linkage, those called here
// are marked always inline (TCM_INLINE). RowSpan's members, inline as well, are not called here. No standard
// library template is instantiated.
#include "bins.h"
#include "code_dots.h"
#include "pattern.h"
#include "rows.h"
#include "scan.h"
#include "simd.h"  // declares the tables, and so gives them external linkage

namespace tcm::cpu {

namespace {

template <class T>
constexpr Simd<T> all_loops() {
  Simd<T> loops{};
  loops.scan_row = scan_row<T>;
  loops.scan_codes = scan<int32_t>;
  loops.scan_products = scan<T>;
  loops.certify = certify;
  loops.encode = encode<T>;
  loops.encode_bfloat16 = encode_bfloat16<T>;
  loops.widen_products = widen_products;
  loops.code_distance = code_distance<T>;
  loops.bfloat16_distance = bfloat16_distance<T>;
  loops.distance = distance<T>;
  loops.pattern_product = pattern_product<T>;
  loops.dot = dot<T>;
  loops.dots = dots<T>;
  loops.code_dots = code_dots;
  loops.squared_norm = squared_norm<T>;
  loops.scale = scale<T>;
  loops.add_wide = add_wide<T>;
  loops.subtract = subtract<T>;
  loops.add = add<T>;
  loops.normalize_backward = normalize_backward<T>;
  loops.bin_columns = bin_columns<T>;
  loops.add_where_equal = add_where_equal;
  loops.set_where_equal = set_where_equal;
  return loops;
}

}  // namespace

#define TCM_JOIN_(a, b) a##b
#define TCM_JOIN(a, b) TCM_JOIN_(a, b)
constexpr Simd<float> TCM_JOIN(TCM_SIMD_NAME, _f32) = all_loops<float>();
constexpr Simd<double> TCM_JOIN(TCM_SIMD_NAME, _f64) = all_loops<double>();

}  // namespace tcm::cpu
