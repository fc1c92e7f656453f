// The inner loops of simd.h, one text for every instruction set. The including file sets the target,
// TCM_SIMD_NAME and TCM_VECTOR_BYTES first, and TCM_VNNI where that is in it. Everything in here and in what is included here has internal
// linkage and no standard library template is instantiated, so no code of a wide target can be shared with a
// narrow one.
#include "bins.h"
#include "code_dots.h"
#include "pattern.h"
#include "rows.h"
#include "scan.h"

namespace tcm::cpu {

#define TCM_JOIN_(a, b) a##b
#define TCM_JOIN(a, b) TCM_JOIN_(a, b)
const Simd<float> TCM_JOIN(TCM_SIMD_NAME, _f32) = {scan_row<float>,
                                                   scan<int32_t>,
                                                   scan<float>,
                                                   certify,
                                                   encode<float>,
                                                   encode_bfloat16<float>,
                                                   widen_products,
                                                   code_distance<float>,
                                                   bfloat16_distance<float>,
                                                   distance<float>,
                                                   pattern_product<float>,
                                                   dot<float>,
                                                   dots<float>,
                                                   code_dots,
                                                   squared_norm<float>,
                                                   scale<float>,
                                                   add_wide<float>,
                                                   subtract<float>,
                                                   add<float>,
                                                   chain<float>,
                                                   bin_columns<float>,
                                                   add_where_equal,
                                                   set_where_equal};
const Simd<double> TCM_JOIN(TCM_SIMD_NAME, _f64) = {scan_row<double>,
                                                    scan<int32_t>,
                                                    scan<double>,
                                                    certify,
                                                    encode<double>,
                                                    encode_bfloat16<double>,
                                                    widen_products,
                                                    code_distance<double>,
                                                    bfloat16_distance<double>,
                                                    distance<double>,
                                                    pattern_product<double>,
                                                    dot<double>,
                                                    dots<double>,
                                                    code_dots,
                                                    squared_norm<double>,
                                                    scale<double>,
                                                    add_wide<double>,
                                                    subtract<double>,
                                                    add<double>,
                                                    chain<double>,
                                                    bin_columns<double>,
                                                    add_where_equal,
                                                    set_where_equal};

}  // namespace tcm::cpu
