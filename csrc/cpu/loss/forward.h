// The two ops on the CPU; see pair_sums.cpp for the method.
#pragma once

#include "accumulate.h"
#include "prepare.h"

namespace tcm::cpu {

// Where the time of a call went, in seconds.
struct StageTimes {
  double order = 0;   // sorting by label, and clearing P and Q
  double pack = 0;    // unit rows, their codes and those of classes
  double choose = 0;  // the look at a sample
  double screen = 0;
  double add_up = 0;
};

// Sums over ordered pairs, as the op returns them.
struct PairSums {
  double positive_sum, negative_sum;
  int64_t positives, negatives;
  StageTimes times;
};

// emb (N, D), labels (N); ref (M, D), ref_labels (M), null in the self case. P and Q of each side are
// written where wanted. All sums become NaN where a norm is not a finite number of type T.
template <class T>
PairSums pair_sums(const Plan& plan, const RawRows& emb, const int64_t* labels, const RawRows& ref,
                   const int64_t* ref_labels, int64_t self_offset, Margins<double> margins, Workspace& work,
                   Sums<T> of_emb, Sums<T> of_ref);

// grad = (g - (g·x̂) x̂) / ‖x‖ with g = w_p P + w_q Q, in the dtype of `raw`.
template <class T>
void chain_rows(const RawRows& raw, Sums<const T> sums, double w_p, double w_q, int64_t threads, void* grad);

}  // namespace tcm::cpu
