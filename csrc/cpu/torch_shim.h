// What the CPU kernels use of torch, through its stable ABI: a matrix product and the thread pool.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <type_traits>

namespace tcm::cpu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
constexpr ScalarType scalar_type();
template <>
constexpr ScalarType scalar_type<float>() {
  return ScalarType::Float;
}
template <>
constexpr ScalarType scalar_type<double>() {
  return ScalarType::Double;
}
template <>
constexpr ScalarType scalar_type<int8_t>() {
  return ScalarType::Char;
}
template <>
constexpr ScalarType scalar_type<torch::headeronly::BFloat16>() {
  return ScalarType::BFloat16;
}
template <>
constexpr ScalarType scalar_type<int32_t>() {
  return ScalarType::Int;
}

// A (rows, cols) matrix in memory, element (i, j) at data[i * row_stride + j * col_stride].
template <class T>
struct Matrix {
  T* data;
  int64_t rows;
  int64_t cols;
  int64_t row_stride;
  int64_t col_stride = 1;

  Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

// out = a · b by aten::mm.out, or by aten::_int_mm.out for int8 factors and int32 products. In a task of
// `for_each_task` with several workers it runs on the calling thread alone, because torch's products are
// serial within a parallel region. With one worker there is no such region, and torch may use more threads.
template <class T, class Out = T>
void matmul(Matrix<const T> a, Matrix<const T> b, Matrix<Out> out) {
  const auto view = [](auto m) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(m.data)>>;
    const std::array<int64_t, 2> sizes{m.rows, m.cols}, strides{m.row_stride, m.col_stride};
    static const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
    return torch::stable::from_blob(const_cast<Element*>(m.data), {sizes.data(), 2}, {strides.data(), 2}, cpu,
                                    scalar_type<Element>());
  };
  using torch::stable::detail::from;
  constexpr const char* op = std::is_same_v<T, int8_t> ? "aten::_int_mm" : "aten::mm";
  std::array<StableIValue, 3> stack{from(view(a)), from(view(b)), from(view(out))};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the result is `out` again: drop that reference
}

// Calls task(index, worker) for every index in [0, count), on threads of torch's pool, or on the calling
// thread where there is one worker. worker in [0, threads) selects the scratch that a task may use. Workers
// take tasks from one counter, so uneven tasks balance; the result of a task must depend on its index alone.
// The first exception keeps further tasks from starting and is rethrown to the caller.
template <class Task>
void for_each_task(int64_t count, int64_t threads, const Task& task) {
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      try {
        for (int64_t index; (index = next.fetch_add(1)) < count;) task(index, worker);
      } catch (...) {
        next.store(count);
        const std::lock_guard<std::mutex> hold(error_lock);
        if (!error) error = std::current_exception();
      }
    }
  };
  const int64_t workers = count < threads ? count : threads;
  if (workers == 1) {
    work(0, 1);
  } else if (workers > 1) {
    torch::stable::parallel_for(0, workers, 1, work);
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace tcm::cpu
