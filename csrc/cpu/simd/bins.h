// Columns of the histogram for a row of similarities; see kernels.h. The rule is in csrc/common/bins.h.
#pragma once

#include "lanes.h"

namespace tcm::cpu {
namespace {

template <class T>
void bin_columns(const T* s, int64_t n, const Bins& bins, uint16_t* columns) {
  typedef int32_t Whole __attribute__((vector_size(kWide * 4)));
  typedef uint16_t Columns __attribute__((vector_size(kWide * 2), aligned(2), may_alias));
  const Wide below = Wide{} - 1.0, above = Wide{} + double(bins.count);
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) {
    Wide at = bins.position(widen(s + i));
    at = at < 0.0 ? below : at;
    at = at < above ? at : above;
    *(Columns*)(columns + i) = __builtin_convertvector(__builtin_convertvector(at, Whole) + 1, Columns);
  }
  for (; i < n; ++i) columns[i] = uint16_t(bins.column(double(s[i])));
}

void add_where_equal(const int32_t* ids, int32_t id, uint16_t amount, int64_t n, uint16_t* columns) {
  for (int64_t i = 0; i < n; ++i) columns[i] = uint16_t(columns[i] + (ids[i] == id ? amount : 0));
}

void set_where_equal(const int32_t* ids, int32_t id, uint16_t value, int64_t n, uint16_t* columns) {
  for (int64_t i = 0; i < n; ++i) columns[i] = ids[i] == id ? value : columns[i];
}

}  // namespace
}  // namespace tcm::cpu
