// How the tiles of a call are screened, and up to which share of its pairs a tile takes each way.
#pragma once

#include "plan.h"

namespace tcm::cpu {

// How tiles are screened; see probe.h.
struct ScreeningPlan {
  bool codes;      // by products of the rows' codes
  bool classes;    // before that, by products of the classes' codes
  int64_t prefix;  // what comes first takes so many columns

  bool has_prefix(const Plan& plan) const { return prefix < plan.dim; }
};

// Of a tile's pairs. Up to there, open pairs get an inner product each; above it the tile is multiplied as a
// whole. Measured on a Xeon with AVX-512 at D = 512: an inner product takes four to five times a pair's share
// of a float32 product (and 20 times its share of an int8 product).
constexpr double kMaxOpenShare = 1.0 / 8;
// Up to there, hard (or not hard) pairs are listed and their rows added one by one; above it the unit rows are
// multiplied with the pattern of bits. Same machine, one pair in 22: 0.34 against 0.55 U.
constexpr double kMaxListShare = 1.0 / 16;
// Up to there, candidates are evaluated at once; above it they are first held against their own bounds.
constexpr double kMaxDirectShare = 1.0 / 128;
// Up to there, the pairs that one product a class, or a product of a prefix, leaves open are evaluated; above
// it the tile is multiplied in whole codes.
constexpr double kMaxLeftShare = 1.0 / 12;

// Whether `count` of `pairs` are no more than that share.
inline bool is_at_most(int64_t count, double share, int64_t pairs) {
  return double(count) <= share * double(pairs);
}

}  // namespace tcm::cpu
