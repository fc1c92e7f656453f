// Sets of columns as bits of 64-bit words.
#pragma once

#include <cstdint>

namespace tcm::cpu {

// The number of words that hold `bits` bits.
inline int64_t words_of(int64_t bits) { return (bits + 63) / 64; }

// Calls visit(first + k) for every set bit k, in ascending order.
template <class Visit>
void for_each_bit(uint64_t bits, int64_t first, const Visit& visit) {
  for (; bits; bits &= bits - 1) visit(first + __builtin_ctzll(bits));
}

}  // namespace tcm::cpu
