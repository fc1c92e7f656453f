// Lays arrays out in one allocation, which Python makes once it knows the size.
#pragma once

#include <cstdint>

#include "common/ceil_div.h"

namespace tcm::cpu {

// With a null base it only measures.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  // Points at the next `bytes`.
  template <class Element>
  void take(Element*& pointer, int64_t bytes) {
    constexpr int64_t kAlign = 64;
    pointer = reinterpret_cast<Element*>(base_ + used_);
    used_ += ceil_div(bytes, kAlign) * kAlign;
  }

  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace tcm::cpu
