#include "int8_products.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "glue.h"

namespace tcm::cpu {
namespace {

bool has_int8_units() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni");  // whatever has AMX has this too
#else
  return false;
#endif
}

// Rows of ±127 in patterns that agree, disagree and alternate: the largest sums, of either sign.
bool exact() {
  constexpr int64_t rows = 130, columns = 67, dim = 192;
  const auto value = [](int64_t row, int64_t k) -> int8_t {
    return row % 3 == 0 || (k >> (row % 7)) % 2 == 0 ? 127 : -127;
  };
  std::vector<int8_t> a(rows * dim), b(columns * dim);
  for (int64_t i = 0; i < rows * dim; ++i) a[i] = value(i / dim, i % dim);
  for (int64_t i = 0; i < columns * dim; ++i) b[i] = value(i / dim + 1, i % dim);
  std::vector<int32_t> product(rows * columns, -1);
  const Matrix<const int8_t> x{a.data(), rows, dim, dim}, y{b.data(), columns, dim, dim};
  try {
    matmul<int8_t, int32_t>(x, y.transposed(), {product.data(), rows, columns, columns});
  } catch (...) {
    return false;  // a torch without that op
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      int32_t sum = 0;
      for (int64_t k = 0; k < dim; ++k) sum += int32_t(a[i * dim + k]) * int32_t(b[j * dim + k]);
      if (product[i * columns + j] != sum) return false;
    }
  }
  return true;
}

}  // namespace

bool int8_products() {
  static const bool usable = [] {
    const char* asked = std::getenv("TCM_KERNELS_CPU_SCREENING");
    if (asked != nullptr && std::strcmp(asked, "full") == 0) return false;
    if (asked != nullptr && std::strcmp(asked, "int8") == 0) return exact();
    return has_int8_units() && exact();
  }();
  return usable;
}

}  // namespace tcm::cpu
