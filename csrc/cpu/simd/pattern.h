// The product of a pattern, a matrix of bits, with rows; see kernels.h.
#pragma once

#include "lanes.h"

namespace tcm::cpu {
namespace {

// A product with a matrix of bits takes no multiplications and fewer additions than there are bits: the sums
// of all subsets of four rows are tabulated once, and four bits of the pattern then take one lookup and one
// addition (the method of four Russians, Arlazarov et al. 1970). A panel is two vectors wide, so that the
// tables of a word's 64 rows stay in the L1 cache (32 KiB with AVX-512) and one index serves two additions. A
// tile of 512 x 512 at D = 512 takes 0.65 to 1 ms of a core with AVX-512, a float32 product 1.7 ms.
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

}  // namespace
}  // namespace tcm::cpu
