#include "quantize.h"

#include <torch/headeronly/util/BFloat16.h>

#include <cmath>
#include <cstdlib>
#include <type_traits>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "cpu/torch_shim.h"

namespace tcm::cpu {
namespace {

using torch::headeronly::BFloat16;

bool is_x86() {
#if defined(__x86_64__)
  return true;
#else
  return false;
#endif
}

bool has_int8_units() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni");  // whatever has AMX has this too
#else
  return false;
#endif
}

bool has_bfloat16_units() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kBfloat16 = 1ul << 14;  // HWCAP2_BF16
  return getauxval(AT_HWCAP2) & kBfloat16;
#else
  return false;  // x86 processors with such units have those for int8 as well
#endif
}

// A plan with what `encode` and `multiply_codes` read, for codes of `dim` elements.
Plan plan_for(Coding coding, int64_t dim) {
  Plan plan{};
  plan.dim = dim;
  plan.coding = coding;
  plan.code_dim = dim;
  return plan;
}

// Whether int8 products are exact, tried on rows of ±limit whose signs agree, differ and alternate: these
// give the largest sums of either sign.
bool exact_int8(int limit) {
  constexpr int64_t rows = 130, columns = 67, dim = 192;
  const auto value = [limit](int64_t row, int64_t k) -> int8_t {
    return int8_t(row % 3 == 0 || (k >> (row % 7)) % 2 == 0 ? limit : -limit);
  };
  std::vector<int8_t> a(rows * dim), b(columns * dim);
  for (int64_t i = 0; i < rows * dim; ++i) a[i] = value(i / dim, i % dim);
  for (int64_t i = 0; i < columns * dim; ++i) b[i] = value(i / dim + 1, i % dim);
  std::vector<int32_t> product(rows * columns, -1);
  try {
    multiply_codes(plan_for({Coding::int8, limit}, dim), a.data(), rows, b.data(), columns, dim,
                   product.data());
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

// Whether products of bfloat16 rows are added up in float32, tried on a sum of 4096 equal terms, which would
// stop growing after 256 of them in bfloat16, and on one with terms of either sign.
bool sound_bfloat16() {
  constexpr int64_t rows = 2, dim = 4096;
  const Plan plan = plan_for({Coding::bfloat16, 0}, dim);
  std::vector<float> unit(rows * dim);
  for (int64_t i = 0; i < rows * dim; ++i) unit[i] = i < dim || i % 3 ? 1.0f / 64 : -1.0f / 64;
  std::vector<BFloat16> code(rows * dim);
  float error[rows];
  float scale = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const RowCode row = encode(plan, unit.data() + i * dim, code.data() + i * dim);
    error[i] = row.error;
    scale = row.scale;
  }
  int32_t product[rows * rows];
  multiply_codes(plan, code.data(), rows, code.data(), rows, dim, product);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < rows; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < dim; ++k) sum += double(unit[i * dim + k]) * double(unit[j * dim + k]);
      const double most = similarity_error(error[i], error[j]);
      if (std::abs(sum - double(scale) * scale * product[i * rows + j]) > most) return false;
    }
  }
  return true;
}

}  // namespace

Coding machine_coding() {
  static const Coding coding = [] {
    const char* asked = std::getenv("TCM_KERNELS_CPU_SCREENING");
    const std::string only = asked == nullptr ? "" : asked;
    const Coding none{Coding::none, 0};
    if (only == "full") return none;
    if (only != "bfloat16") {
      const Coding full{Coding::int8, kCodeLimit}, half{Coding::int8, kHalfCodeLimit};
      if ((has_int8_units() || only == "int8") && exact_int8(full.limit)) return full;
      if ((is_x86() || only == "int8") && exact_int8(half.limit)) return half;
    }
    if (only != "int8" && (has_bfloat16_units() || only == "bfloat16") && sound_bfloat16()) {
      return Coding{Coding::bfloat16, 0};
    }
    return none;
  }();
  return coding;
}

std::string coding_name() {
  switch (machine_coding().kind) {
    case Coding::int8: return machine_coding().limit == kCodeLimit ? "int8" : "int8 (7 bits)";
    case Coding::bfloat16: return "bfloat16";
    default: return "full-precision";
  }
}

template <class T>
RowCode encode(const Plan& plan, const T* unit, void* code) {
  const Simd<T>& loops = simd<T>();
  if (plan.coding.kind == Coding::int8) {
    return loops.encode(unit, plan.dim, plan.code_dim, plan.coding.limit, static_cast<int8_t*>(code));
  }
  loops.encode_bfloat16(unit, plan.dim, plan.code_dim, static_cast<uint16_t*>(code));
  return {kBfloat16Scale, error_of_code(plan, unit, code, kBfloat16Scale)};
}

template <class T>
float error_of_code(const Plan& plan, const T* unit, const void* code, float scale) {
  const Simd<T>& loops = simd<T>();
  if (plan.coding.kind == Coding::int8) {
    return round_up_error(loops.code_distance(unit, static_cast<const int8_t*>(code), scale, plan.dim));
  }
  return round_up_error(loops.bfloat16_distance(unit, static_cast<const uint16_t*>(code), plan.dim)) +
         bfloat16_product_error(plan.dim) / 2;
}

template <class T>
void decode(const Plan& plan, const void* code, float scale, T* out) {
  for (int64_t k = 0; k < plan.dim; ++k) {
    out[k] = plan.coding.kind == Coding::int8 ? T(scale * float(static_cast<const int8_t*>(code)[k]))
                                              : T(float(static_cast<const BFloat16*>(code)[k]));
  }
}

void multiply_codes(const Plan& plan, const void* x, int64_t rows, const void* r, int64_t columns,
                    int64_t width, int32_t* products) {
  const auto multiply = [&](auto code, auto* out) {
    using Code = decltype(code);
    const Matrix<const Code> a{static_cast<const Code*>(x), rows, width, plan.code_dim};
    const Matrix<const Code> b{static_cast<const Code*>(r), columns, width, plan.code_dim};
    matmul<Code>(a, b.transposed(),
                 Matrix<std::remove_pointer_t<decltype(out)>>{out, rows, columns, columns});
  };
  if (plan.coding.kind == Coding::int8) {
    multiply(int8_t(), products);
    return;
  }
  // Products go into the upper half of the same memory and are widened in place, from the first to the last.
  BFloat16* narrow = reinterpret_cast<BFloat16*>(products) + rows * columns;
  multiply(BFloat16(), narrow);
  simd<float>().widen_products(reinterpret_cast<const uint16_t*>(narrow), rows * columns, products);
}

#define TCM_INSTANTIATE(T)                                                    \
  template RowCode encode<T>(const Plan&, const T*, void*);                   \
  template float error_of_code<T>(const Plan&, const T*, const void*, float); \
  template void decode<T>(const Plan&, const void*, float, T*);
TCM_INSTANTIATE(float)
TCM_INSTANTIATE(double)

}  // namespace tcm::cpu
