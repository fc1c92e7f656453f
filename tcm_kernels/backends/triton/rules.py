"""The hard-pair rule and the certificate in Triton.

They are derived in csrc/common/hard_pair.h and certificate.h. The constants have the values there; a test
compares most of them. Float32 similarities are compared with thresholds, the margins rounded to float32 (m+
down, m- up): a float32 similarity lies on the same side of the threshold as of the margin.
"""

from __future__ import annotations

import triton
import triton.language as tl

CODE_LIMIT = tl.constexpr(127.0)
ROUND_UP = tl.constexpr(1.0 + 4e-6)
ROUND_UP_TINY = tl.constexpr(1e-37)
SLACK = tl.constexpr(2e-6)
SMALLEST_TILE_SCALE = tl.constexpr(1e-6)  # below it a tile's codes and scale are 0
FARTHEST_THRESHOLD = tl.constexpr(1073741824.0)  # no product of codes with its offset is larger
INVERSE_OF_NO_SCALE = tl.constexpr(1048576.0)  # where a scale is 0, and all products with it
NORM_FLOOR = tl.constexpr(1e-12)  # as torch.nn.functional.normalize
LARGEST_FLOAT32 = tl.constexpr(3.4028235677973366e38)  # from here on, a float64 is infinite in float32


@triton.jit
def is_hard(s, same, threshold_plus, threshold_minus):
    """Whether pairs of similarity s are hard; `same`: whether they are of one class. NaN is not hard."""
    return tl.where(same, s <= threshold_plus, s >= threshold_minus)


@triton.jit
def penalty(s, same, threshold_plus, threshold_minus):
    """The penalty of pairs from their threshold: 0 of those that are not hard, NaN among them.

    Deciding by its sign instead takes fewer instructions (a bfloat16 tile 3 % fewer on sm_90a, 17 % on sm_80)
    and 50 registers more on sm_90a.
    """
    beyond = tl.where(same, threshold_plus - s, s - threshold_minus)
    return tl.where(beyond > 0, beyond, 0.0)


@triton.jit
def inverse_scale(scale_i, scale_j):
    """1 / (scale_i · scale_j): the factor from similarities to products of codes of two tiles."""
    product = scale_i * scale_j
    return tl.where(product > 0, 1.0 / tl.where(product > 0, product, 1.0), INVERSE_OF_NO_SCALE)


@triton.jit
def errors_at_most(scale, DIM: tl.constexpr):
    """An upper bound of the error of every row of a tile with this scale."""
    return tl.sqrt(DIM + 0.0) * tl.maximum(0.51 * scale, 128.0 * SMALLEST_TILE_SCALE)


@triton.jit
def column_offset(error, inverse):
    """What a column's error adds to its products, rounded up: int32 (n,)."""
    return tl.ceil(error * inverse * (1.0 + 1e-6)).to(tl.int32) + 1


@triton.jit
def row_threshold(error, errors_of_columns, inverse, threshold_minus):
    """The least product plus offset at which a pair of two classes may be hard, rounded down: int32 (n,)."""
    x = (threshold_minus - SLACK - error * (1.0 + errors_of_columns)) * inverse
    x = tl.floor(x - tl.abs(x) * 2e-6 - 1.0)
    is_number = x == x  # noqa: PLR0124
    x = tl.where(is_number, x, -FARTHEST_THRESHOLD)
    return tl.minimum(tl.maximum(x, -FARTHEST_THRESHOLD), FARTHEST_THRESHOLD).to(tl.int32)


@triton.jit
def norms(x):
    """Norm of each row of x (n, D) float64, 1 / max(norm, floor), and whether the norm is finite in float32.

    The inverse of a norm that is not finite is 1, so that nothing is computed from infinity.
    """
    norm = tl.sqrt(tl.sum(x * x, axis=1))
    finite = norm < LARGEST_FLOAT32
    return norm, 1.0 / tl.maximum(tl.where(finite, norm, 1.0), NORM_FLOOR), finite


@triton.jit
def inverse_norms(x):
    """1 / max(norm, floor) of each row of x (n, D) float32, in float32; NaN where it is not finite.

    Squares of norms from 1e-12 to 1.8e19 are float32 numbers: a larger norm counts as not finite, a smaller
    one is raised to the floor.
    """
    squares = tl.sum(x * x, axis=1)
    inverse = tl.div_rn(1.0, tl.maximum(tl.sqrt_rn(squares), NORM_FLOOR))
    return tl.where(squares < LARGEST_FLOAT32, inverse, float("nan"))


@triton.jit
def not_finite(inverse):
    """How many of the inverse norms (n,) are NaN: those of rows that are not finite."""
    return tl.sum((inverse != inverse).to(tl.int32), axis=0)  # noqa: PLR0124


@triton.jit
def _step_down(x):
    """The next float32 below x."""
    bits = x.to(tl.int32, bitcast=True)
    below = tl.where(x > 0, bits - 1, tl.where(x < 0, bits + 1, -2147483647))
    return below.to(tl.float32, bitcast=True)


@triton.jit
def thresholds(margins_ptr):
    """The float32 thresholds of the float64 margins [m+, m-]: m+ rounded down, m- rounded up."""
    plus, minus = tl.load(margins_ptr), tl.load(margins_ptr + 1)
    narrow_plus, narrow_minus = plus.to(tl.float32), minus.to(tl.float32)
    threshold_plus = tl.where(narrow_plus.to(tl.float64) > plus, _step_down(narrow_plus), narrow_plus)
    threshold_minus = tl.where(narrow_minus.to(tl.float64) < minus, -_step_down(-narrow_minus), narrow_minus)
    return threshold_plus, threshold_minus


@triton.jit
def beyond_margins(margins_ptr):
    """What a penalty from the margin has beyond that from the threshold, (2,) float64, at least 0."""
    threshold_plus, threshold_minus = thresholds(margins_ptr)
    plus, minus = tl.load(margins_ptr), tl.load(margins_ptr + 1)
    sign = tl.arange(0, 2)
    return tl.where(sign == 0, plus - threshold_plus.to(tl.float64), threshold_minus.to(tl.float64) - minus)
