// Rows of D numbers: inner products, norms, coding, the gradient of the normalisation; see kernels.h.
#pragma once

#include "lanes.h"

namespace tcm::cpu {
namespace {

// Inner products of x with kRows rows at once: x is loaded once for all of them, and the cache lines of one
// row are loaded while the products of others are added.
template <int kRows, class T>
inline void dot_rows(const T* x, const T* const (&rows)[kRows], int64_t n, T* out) {
  constexpr int kLanes = Lanes<T>::count;
  typename Lanes<T>::Vector acc[kRows][2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    for (int half = 0; half < 2; ++half) {
      const auto v = load(x + i + half * kLanes);
      for (int r = 0; r < kRows; ++r) acc[r][half] += v * load(rows[r] + i + half * kLanes);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    T sum = sum_of_lanes<T>(acc[r][0] + acc[r][1]);
    for (int64_t k = i; k < n; ++k) sum += x[k] * rows[r][k];
    out[r] = sum;
  }
}

template <class T>
T dot(const T* x, const T* y, int64_t n) {
  const T* const rows[1] = {y};
  T sum;
  dot_rows<1>(x, rows, n, &sum);
  return sum;
}

template <class T>
void dots(const T* x, const T* rows, const int32_t* index, int64_t count, int64_t n, T* out) {
  int64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const T* const four[4] = {rows + index[k] * n, rows + index[k + 1] * n, rows + index[k + 2] * n,
                              rows + index[k + 3] * n};
    dot_rows<4>(x, four, n, out + k);
  }
  for (; k < count; ++k) out[k] = dot(x, rows + index[k] * n, n);
}

template <class T>
double code_distance(const T* u, const int8_t* code, float scale, int64_t n) {
  return reduce(n, [=](auto at) {
    const auto rest = at(u) - double(scale) * at(code);
    return rest * rest;
  });
}

template <class T>
double bfloat16_distance(const T* u, const uint16_t* code, int64_t n) {
  return reduce(n, [=](auto at) {
    const auto rest = at(u) - at(code);
    return rest * rest;
  });
}

template <class T>
double distance(const T* u, const T* v, int64_t n) {
  return reduce(n, [=](auto at) {
    const auto rest = at(u) - at(v);
    return rest * rest;
  });
}

template <class T>
RowCode encode(const T* __restrict u, int64_t n, int64_t padded, int limit, int8_t* __restrict code) {
  // The maximum is written in lanes, because compilers may not reorder one without -ffast-math.
  using Vector = typename Lanes<T>::Vector;
  constexpr int kLanes = Lanes<T>::count;
  Vector most = {}, least = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vector v = load(u + i);
    most = v > most ? v : most;
    least = v < least ? v : least;
  }
  T largest = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const T size = most[lane] > -least[lane] ? most[lane] : -least[lane];
    largest = size > largest ? size : largest;
  }
  for (; i < n; ++i) {
    const T size = u[i] < 0 ? -u[i] : u[i];
    largest = size > largest ? size : largest;
  }
  const float scale = float(largest) / float(limit);
  const bool codable = scale >= kSmallestScale;
  const float inverse = codable ? 1.0f / scale : 0.0f;
  for (i = 0; i < n; ++i) {
    const float v = float(u[i]) * inverse;  // at most limit + 0.0001, so it rounds to at most limit
    code[i] = int8_t(int(v + __builtin_copysignf(0.5f, v)));
  }
  for (i = n; i < padded; ++i) code[i] = 0;
  const float c = codable ? scale : 0.0f;
  return {c, round_up_error(code_distance(u, code, c, n))};
}

template <class T>
void encode_bfloat16(const T* __restrict u, int64_t n, int64_t padded, uint16_t* __restrict code) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = float(u[i]);
    uint32_t bits;
    __builtin_memcpy(&bits, &v, sizeof(bits));
    code[i] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
  }
  for (int64_t i = n; i < padded; ++i) code[i] = 0;
}

inline void widen_products(const uint16_t* q, int64_t n, int32_t* out) {
  typedef uint16_t Narrow __attribute__((vector_size(32), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(64)));
  typedef float Floats __attribute__((vector_size(64)));
  typedef int32_t Products __attribute__((vector_size(64), aligned(4), may_alias));
  int64_t i = 0;
  // Each step reads 16 products before it writes 16, and never writes over products that later steps read.
  for (; i + 16 <= n; i += 16) {
    const Floats s = (Floats)(__builtin_convertvector(*(const Narrow*)(q + i), Bits) << 16);
    *(Products*)(out + i) = __builtin_convertvector(s * 0x1p22f, Products);
  }
  for (; i < n; ++i) out[i] = int32_t(float_of(q[i]) * 0x1p22f);
}

template <class T>
double squared_norm(const T* x, int64_t n) {
  return reduce(n, [=](auto at) { return at(x) * at(x); });
}

template <class T>
void scale(const T* x, double factor, T* out, int64_t n) {
  fill(out, n, [=](auto at) { return at(x) * factor; });
}

template <class T>
void add_wide(double* acc, const T* x, int64_t n) {
  fill(acc, n, [=](auto at) { return at(acc) + at(x); });
}

template <class T>
void subtract(T* __restrict acc, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) acc[i] -= x[i];
}

template <class T>
void add(T* __restrict acc, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) acc[i] += x[i];
}

template <class T>
void normalize_backward(const T* __restrict x, const T* __restrict p, const T* __restrict q, double w_p,
                        double w_q, double inverse, bool tangent, T* __restrict out, int64_t n) {
  const auto g = [=](auto at) { return w_p * at(p) + w_q * at(q); };
  const double along = tangent ? reduce(n, [=](auto at) { return g(at) * (at(x) * inverse); }) : 0.0;
  fill(out, n, [=](auto at) { return (g(at) - along * (at(x) * inverse)) * inverse; });
}

}  // namespace
}  // namespace tcm::cpu
