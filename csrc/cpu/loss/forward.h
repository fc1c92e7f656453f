// The forward on the CPU; see forward.cpp for the method.
#pragma once

#include "accumulate.h"
#include "prepare.h"

namespace tcm::cpu {

// The seconds that each stage of a call takes.
struct StageTimes {
  double order = 0;    // sorting by label, and clearing P and Q
  double prepare = 0;  // unit rows, their codes and tails, and centroids
  double probe = 0;
  double screen = 0;
  double accumulate = 0;
};

// Sums and counts over ordered pairs, as the op returns them.
struct ForwardResult {
  double positive_sum, negative_sum;
  int64_t positives, negatives;
  StageTimes times;
};

// emb (N, D), labels (N); ref (M, D), ref_labels (M), which is null in the self case. P and Q of each side
// are written where not null, or with `add` added to what they hold. Where a norm is not a finite number of
// type T, all sums, P and Q become NaN.
template <class T>
ForwardResult forward(const Plan& plan, const RawRows& emb, const int64_t* labels, const RawRows& ref,
                      const int64_t* ref_labels, int64_t self_offset, Margins<double> margins, bool add,
                      Workspace& work, PartnerSums<T> of_emb, PartnerSums<T> of_ref);

}  // namespace tcm::cpu
