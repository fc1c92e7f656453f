// How the tiles of a call are screened, and the shares of a tile's pairs that decide between methods. Terms:
//   block          the rows, or the columns, of one tile
//   candidate      a pair that the tile-wide threshold does not prove harmless
//   open           a candidate that its own bound proves neither harmless nor hard
//   cheap product  a product by centroids (centroids.h), over a prefix (probe.h), or both
//   undecided      a pair that a cheap product does not prove harmless
//   prefix K       the first K of D columns; the tail of a row u is ‖u[K:]‖
//   pattern        the matrix of bits of one tile and one sign
#pragma once

#include "plan.h"

namespace tcm::cpu {

// Chosen by `probe`.
struct ScreeningPlan {
  bool codes;         // whether tiles are multiplied in codes, else in full precision
  bool by_centroids;  // whether a cheap product by centroids precedes that
  int64_t prefix;     // K of the cheap product; D where it takes all columns

  bool has_prefix(const Plan& plan) const { return prefix < plan.dim; }
};

// Shares of a tile's pairs. Up to this one, open pairs get an inner product each; above it the tile is
// multiplied in full precision. Measured on a Xeon with AVX-512 at D = 512: an inner product takes four to
// five times a pair's share of a float32 product (and 20 times its share of an int8 product).
constexpr double kMaxOpenShare = 1.0 / 8;
// Up to this share, hard (or not hard) pairs are listed and their rows added one by one; above it the pattern
// is multiplied with the unit rows. On the same machine, with one pair in 22: 0.34 against 0.55 U.
constexpr double kMaxListShare = 1.0 / 16;
// Up to this share, candidates get an inner product each; above it their own bounds are evaluated first.
constexpr double kMaxDirectShare = 1.0 / 128;
// Up to this share, the undecided pairs of a cheap product are evaluated; above it the tile is multiplied in
// whole codes, or in full precision where `codes` is false. Comparing with this double gives the same result
// as the integer comparison count * 12 <= pairs.
constexpr double kMaxUndecidedShare = 1.0 / 12;

// Whether `count` is at most `share` of `pairs`.
inline bool is_at_most(int64_t count, double share, int64_t pairs) {
  return double(count) <= share * double(pairs);
}

}  // namespace tcm::cpu
