// The inner loops of simd.h, one text for every instruction set. The including file sets the target,
// TCM_SIMD_NAME and TCM_VECTOR_BYTES first. Everything here has internal linkage and no standard
// library template is instantiated, so no code of a wide target can be shared with a narrow one.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "simd.h"

namespace tcm::cpu {
namespace {

constexpr int kWord = 64;  // columns per word of the bit map

template <class T>
struct Lanes {
  static constexpr int count = TCM_VECTOR_BYTES / int(sizeof(T));
  typedef T Vector __attribute__((vector_size(TCM_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

// One bit per lane of a comparison's result, lane 0 in bit 0.
template <class Mask>
inline uint64_t lane_bits(Mask mask, float) {
#if TCM_VECTOR_BYTES == 64
  return _mm512_movepi32_mask((__m512i)mask);
#elif TCM_VECTOR_BYTES == 32
  return uint32_t(_mm256_movemask_ps((__m256)mask));
#elif defined(__x86_64__)
  return uint32_t(_mm_movemask_ps((__m128)mask));
#else
  uint64_t bits = 0;
  for (int k = 0; k < Lanes<float>::count; ++k) bits |= uint64_t(mask[k] & 1) << k;
  return bits;
#endif
}

template <class Mask>
inline uint64_t lane_bits(Mask mask, double) {
#if TCM_VECTOR_BYTES == 64
  return _mm512_movepi64_mask((__m512i)mask);
#elif TCM_VECTOR_BYTES == 32
  return uint32_t(_mm256_movemask_pd((__m256d)mask));
#elif defined(__x86_64__)
  return uint32_t(_mm_movemask_pd((__m128d)mask));
#else
  uint64_t bits = 0;
  for (int k = 0; k < Lanes<double>::count; ++k) bits |= uint64_t(mask[k] & 1) << k;
  return bits;
#endif
}

template <class T>
inline typename Lanes<T>::Vector load(const T* p) {
  return *(const typename Lanes<T>::Vector*)p;
}

// Bits of the 64 columns at s for which `hard` holds.
template <class T, class Rule>
inline uint64_t word_of(const T* s, Rule hard) {
  uint64_t bits = 0;
  for (int k = 0; k < kWord; k += Lanes<T>::count) bits |= lane_bits(hard(load(s + k)), T()) << k;
  return bits;
}

// Bits [begin, end) of a word, for any begin and end.
inline uint64_t bit_range(int64_t begin, int64_t end) {
  begin = begin < 0 ? 0 : begin;
  end = end > kWord ? kWord : end;
  if (begin >= end) return 0;
  const uint64_t upto_end = end == kWord ? ~uint64_t(0) : (uint64_t(1) << end) - 1;
  return upto_end & ~((uint64_t(1) << begin) - 1);
}

// Eight lanes of T, the integers of their size, and float64: the compiler splits them as the target wants.
template <class T>
struct Eight;
template <>
struct Eight<float> {
  typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));
  typedef int32_t Integers __attribute__((vector_size(32)));
};
template <>
struct Eight<double> {
  typedef double Vector __attribute__((vector_size(64), aligned(8), may_alias));
  typedef int64_t Integers __attribute__((vector_size(64)));
};
typedef double EightDoubles __attribute__((vector_size(64)));

// Sum of s over the set bits. Few: one by one. Many: all 64 columns, those not set turned to 0 (without a
// branch: at half density a branch a pair cost 1.1 ms a tile of 512 x 512, this costs 0.1).
template <class T>
inline double masked_sum(const T* s, uint64_t bits) {
  if (__builtin_popcountll(bits) <= 8) {
    double sum = 0;
    for (; bits; bits &= bits - 1) sum += double(s[__builtin_ctzll(bits)]);
    return sum;
  }
  using Integers = typename Eight<T>::Integers;
  const Integers lane = {1, 2, 4, 8, 16, 32, 64, 128};
  EightDoubles acc = {};
  for (int k = 0; k < kWord; k += 8, bits >>= 8) {
    const Integers set = (lane & (Integers{} + int(bits & 255))) == lane;
    const Integers kept = (Integers) * (const typename Eight<T>::Vector*)(s + k) & set;
    acc += __builtin_convertvector((typename Eight<T>::Vector)kept, EightDoubles);
  }
  return ((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7]));
}

template <class T>
void scan_row(const T* s, RowSpan span, Margins<T> margins, uint64_t* bits, TileSums* sums) {
  for (int64_t at = 0; at < span.last; at += kWord, s += kWord, ++bits) {
    const uint64_t pairs = bit_range(span.first - at, span.last - at);
    const uint64_t same = bit_range(span.same_begin - at, span.same_end - at) & pairs;
    uint64_t negatives = 0, positives = 0;
    if (same != pairs) {
      negatives = word_of(s, [&](auto v) { return is_hard_negative(v, margins); }) & pairs & ~same;
    }
    if (same) {
      positives = word_of(s, [&](auto v) { return is_hard_positive(v, margins); }) & same;
    }
    *bits = negatives | positives;
    if (negatives) {
      sums->negatives += __builtin_popcountll(negatives);
      sums->negative += masked_sum(s, negatives);
    }
    if (positives) {
      sums->positives += __builtin_popcountll(positives);
      sums->positive += masked_sum(s, positives);
    }
  }
}

inline uint64_t reached(const int32_t* q, int32_t threshold) {
  typedef int32_t Vector __attribute__((vector_size(TCM_VECTOR_BYTES), aligned(4), may_alias));
  uint64_t bits = 0;
  for (int k = 0; k < kWord; k += Lanes<float>::count) {
    bits |= lane_bits(*(const Vector*)(q + k) >= threshold, float()) << k;
  }
  return bits;
}

template <class T>
inline uint64_t reached(const T* s, T threshold) {
  return word_of(s, [=](auto v) { return v >= threshold; });
}

inline Certified certify(const int32_t* q, RowCode row, const float* scale, const float* error,
                         float similarity) {
  typedef int32_t Products __attribute__((vector_size(TCM_VECTOR_BYTES), aligned(4), may_alias));
  using Floats = Lanes<float>::Vector;
  Certified result{0, 0};
  for (int k = 0; k < kWord; k += Lanes<float>::count) {
    const Floats s = __builtin_convertvector(*(const Products*)(q + k), Floats) * load(scale + k) * row.scale;
    const Floats bound = similarity_error(row.error, load(error + k));
    result.may |= lane_bits(s + bound >= similarity, float()) << k;
    result.surely |= lane_bits(s - bound >= similarity, float()) << k;
  }
  return result;
}

template <class Product>
int64_t scan(const Product* q, RowSpan span, Product threshold, uint64_t* bits) {
  int64_t count = 0;
  for (int64_t at = 0; at < span.last; at += kWord, q += kWord, ++bits) {
    const uint64_t pairs = bit_range(span.first - at, span.last - at);
    const uint64_t same = bit_range(span.same_begin - at, span.same_end - at);
    *bits = (reached(q, threshold) | same) & pairs;
    count += __builtin_popcountll(*bits);
  }
  return count;
}

// A product with a matrix of bits takes no multiplication, and fewer additions than there are bits: the
// sums of every subset of four rows are tabulated once, and then four bits of the pattern are one lookup
// and one addition (the method of four Russians, Arlazarov et al. 1970). Two vectors wide, so that the
// tables of a word's 64 rows stay in the L1 cache (32 KiB with AVX-512) and one index serves two additions.
// A tile of 512 x 512 at D = 512 takes 0.65 to 1 ms of a core with AVX-512, a float32 product 1.7 ms.
template <class T>
void pattern_product(const uint64_t* pattern, int64_t words, int64_t own, const T* rows, int64_t row_stride,
                     int64_t others, int64_t width, T* __restrict scratch, T* __restrict out,
                     int64_t out_stride) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int kLanes = Lanes<T>::count, kPanel = 2 * kLanes, kSubsets = 16, kGroups = kWord / 4;
  constexpr int kPanelBytes = 2 * TCM_VECTOR_BYTES, kTableBytes = kSubsets * kPanelBytes;
  static_assert(kPatternPanel % kPanel == 0 && kPatternScratch >= kGroups * kSubsets * kPanel, "room");
  T* table = scratch;
  T* acc = scratch + kPatternScratch;
  const Vector zero = {};
  for (int64_t from = 0; from < width; from += kPanel) {
    const bool whole = width - from >= kPanel;
    for (int64_t w = 0; w < words; ++w) {
      for (int group = 0; group < kGroups; ++group) {
        Vector row[8];  // four rows, two vectors each
        for (int bit = 0; bit < 4; ++bit) {
          const int64_t j = w * kWord + group * 4 + bit;
          row[2 * bit] = row[2 * bit + 1] = zero;
          if (j < others && whole) {
            row[2 * bit] = load(rows + j * row_stride + from);
            row[2 * bit + 1] = load(rows + j * row_stride + from + kLanes);
          } else if (j < others) {
            T part[kPanel] = {};
            for (int64_t k = 0; k < width - from; ++k) part[k] = rows[j * row_stride + from + k];
            row[2 * bit] = load(part);
            row[2 * bit + 1] = load(part + kLanes);
          }
        }
        Vector* sums = (Vector*)(table + group * kSubsets * kPanel);
        for (int half = 0; half < 2; ++half) {
          const Vector a = row[half], b = row[2 + half], c = row[4 + half], d = row[6 + half];
          const Vector two[4] = {zero, a, b, a + b}, more[4] = {zero, c, d, c + d};
#pragma GCC unroll 16
          for (int subset = 0; subset < kSubsets; ++subset) {
            sums[2 * subset + half] = two[subset % 4] + more[subset / 4];
          }
        }
      }
      const bool last = w + 1 == words;
      T* to = last ? out + from : acc;
      const int64_t stride = last ? out_stride : kPanel;
      for (int64_t i = 0; i < own; ++i) {
        const uint64_t bits = pattern[i * words + w];
        Vector low = zero, high = zero;
        if (w > 0) low = load(acc + i * kPanel), high = load(acc + i * kPanel + kLanes);
#pragma GCC unroll 16
        for (int group = 0; group < kGroups; ++group) {
          // The byte offset of the subset's sum, with one shift and one mask.
          constexpr uint64_t kMask = uint64_t(kSubsets - 1) * kPanelBytes;
          const int shift = 4 * group - __builtin_ctz(kPanelBytes);
          const uint64_t offset = (shift < 0 ? bits << -shift : bits >> shift) & kMask;
          const T* sum = (const T*)((const char*)table + offset + group * kTableBytes);
          low += load(sum);
          high += load(sum + kLanes);
        }
        *(Vector*)(to + i * stride) = low;
        *(Vector*)(to + i * stride + kLanes) = high;
      }
    }
  }
}

// The sum of a vector's lanes, halves upon halves.
template <class T, int kBytes = TCM_VECTOR_BYTES, class Vector>
inline T sum_of_lanes(Vector v) {
  if constexpr (kBytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    typedef T Half __attribute__((vector_size(kBytes / 2), may_alias));
    Half half[2];
    __builtin_memcpy(half, &v, kBytes);
    return sum_of_lanes<T, kBytes / 2>(half[0] + half[1]);
  }
}

// Inner products of x with a few rows at once: x is loaded once for all of them, and while one row's lines
// are on their way the others' are added.
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

// By name where the processor multiplies pairs of 16-bit integers and adds them up: compilers do without.
inline int32_t code_dot(const int8_t* x, const int8_t* y, int64_t n) {
  int32_t sum = 0;
  int64_t i = 0;
#if TCM_VECTOR_BYTES == 64
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (; i + 64 <= n; i += 64) {
    for (int half = 0; half < 2; ++half) {
      const __m512i a = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(x + i + 32 * half)));
      const __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(y + i + 32 * half)));
      sums[half] = _mm512_add_epi32(sums[half], _mm512_madd_epi16(a, b));
    }
  }
  typedef int32_t Integers __attribute__((vector_size(64)));
  sum = sum_of_lanes<int32_t>((Integers)_mm512_add_epi32(sums[0], sums[1]));
#elif TCM_VECTOR_BYTES == 32
  __m256i sums = _mm256_setzero_si256();
  for (; i + 16 <= n; i += 16) {
    const __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(x + i)));
    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(y + i)));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
  }
  typedef int32_t Integers __attribute__((vector_size(32)));
  sum = sum_of_lanes<int32_t>((Integers)sums);
#endif
  for (; i < n; ++i) sum += int32_t(x[i]) * int32_t(y[i]);
  return sum;
}

inline void code_dots(const int8_t* x, const int8_t* codes, const int32_t* index, int64_t count, int64_t n,
                      int32_t* out) {
  for (int64_t k = 0; k < count; ++k) out[k] = code_dot(x, codes + index[k] * n, n);
}

// A vector of float64, and as many elements of another type as it has lanes. The three conversions that
// compilers split into halves or single elements are named.
constexpr int kWide = Lanes<double>::count;
using Wide = Lanes<double>::Vector;

template <class T>
inline Wide widen(const T* p) {
  typedef T Narrow __attribute__((vector_size(kWide * sizeof(T)), aligned(alignof(T)), may_alias));
  return __builtin_convertvector(*(const Narrow*)p, Wide);
}
template <class T>
inline void narrow(Wide v, T* out) {
  typedef T Narrow __attribute__((vector_size(kWide * sizeof(T)), aligned(alignof(T)), may_alias));
  *(Narrow*)out = __builtin_convertvector(v, Narrow);
}
#if TCM_VECTOR_BYTES == 64
template <>
inline Wide widen(const float* p) {
  return (Wide)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
}
template <>
inline Wide widen(const int8_t* p) {
  return (Wide)_mm512_maskz_cvtepi32_pd(0xff, _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
template <>
inline void narrow(Wide v, float* out) {
  _mm256_storeu_ps(out, _mm512_maskz_cvtpd_ps(0xff, (__m512d)v));
}
#elif TCM_VECTOR_BYTES == 32
template <>
inline Wide widen(const float* p) {
  return (Wide)_mm256_cvtps_pd(_mm_loadu_ps(p));
}
template <>
inline Wide widen(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof(four));
  return (Wide)_mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
}
template <>
inline void narrow(Wide v, float* out) {
  _mm_storeu_ps(out, _mm256_cvtpd_ps((__m256d)v));
}
#endif

// A bfloat16 is the upper half of a float32.
inline Wide widen(const uint16_t* p) {
  typedef uint16_t Narrow __attribute__((vector_size(kWide * 2), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(kWide * 4)));
  typedef float Floats __attribute__((vector_size(kWide * 4)));
  return __builtin_convertvector((Floats)(__builtin_convertvector(*(const Narrow*)p, Bits) << 16), Wide);
}
inline float float_of(uint16_t bfloat16) {
  const uint32_t bits = uint32_t(bfloat16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Elements from i on of an array in float64, a vector of them or one.
struct WideAt {
  int64_t i;
  template <class T>
  Wide operator()(const T* p) const {
    return widen(p + i);
  }
};
struct OneAt {
  int64_t i;
  template <class T>
  double operator()(const T* p) const {
    return double(p[i]);
  }
  double operator()(const uint16_t* p) const { return double(float_of(p[i])); }
};

// Σ term(i) in float64, in an order of its own that depends on n and the instruction set alone. `term` is
// given one of these loaders.
template <class Term>
inline double reduce(int64_t n, Term term) {
  Wide sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWide <= n; i += 4 * kWide) {
    for (int k = 0; k < 4; ++k) sums[k] += term(WideAt{i + k * kWide});
  }
  for (; i + kWide <= n; i += kWide) sums[0] += term(WideAt{i});
  double sum = sum_of_lanes<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; ++i) sum += term(OneAt{i});
  return sum;
}

// out[i] = term(i), computed in float64.
template <class T, class Term>
inline void fill(T* out, int64_t n, Term term) {
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) narrow(term(WideAt{i}), out + i);
  for (; i < n; ++i) out[i] = T(term(OneAt{i}));
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
  // Lanes written out: without -ffast-math no compiler may reorder a maximum.
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
    const float v = float(u[i]) * inverse;  // within limit + 0.0001: rounds to a code, whichever way it falls
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
  // Sixteen are read before sixteen are written, and those end before the next are read.
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
void chain(const T* __restrict x, const T* __restrict p, const T* __restrict q, double w_p, double w_q,
           double inverse, bool tangent, T* __restrict out, int64_t n) {
  const auto g = [=](auto at) { return w_p * at(p) + w_q * at(q); };
  const double along = tangent ? reduce(n, [=](auto at) { return g(at) * (at(x) * inverse); }) : 0.0;
  fill(out, n, [=](auto at) { return (g(at) - along * (at(x) * inverse)) * inverse; });
}

}  // namespace

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
                                                   chain<float>};
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
                                                    chain<double>};

}  // namespace tcm::cpu
