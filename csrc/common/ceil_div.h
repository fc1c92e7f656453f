// a / b rounded up, for a >= 0 and b > 0, for C++ and CUDA alike.
#pragma once

#include <cstdint>

#include "hard_pair.h"

namespace tcm {

constexpr TCM_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace tcm
