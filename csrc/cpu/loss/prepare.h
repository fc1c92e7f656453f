// Prepare: label order, and unit rows packed in that order.
//
// Rows are sorted by label (stable), so the columns of a row's own class are one run [same_begin, same_end):
// the inner loops compare no labels, and most tiles have no positives at all.
#pragma once

#include <cstdint>

#include "cpu/torch_shim.h"
#include "workspace.h"

namespace tcm::cpu {

constexpr double kNormFloor = 1e-12;  // as torch.nn.functional.normalize

// One side of the pairs: raw embeddings as the user gave them, contiguous.
struct RawRows {
  const void* data;
  ScalarType dtype;
  int64_t rows;
  int64_t dim;
};

// Row `index` in the compute dtype T: the row itself where it has that dtype, else its conversion in `buffer`
// (dim elements).
template <class T>
const T* load_row(const RawRows& raw, int64_t index, T* buffer);
template <>
const float* load_row(const RawRows& raw, int64_t index, float* buffer);
template <>
const double* load_row(const RawRows& raw, int64_t index, double* buffer);

// Fills the label order of both sides, the runs of equal labels, and self_index. ref_labels is null in the
// self case. Otherwise row i of emb is the same sample as row i + self_offset of ref; self_offset < 0 means
// that no sample is on both sides.
void order_by_label(const Plan& plan, const int64_t* labels, const int64_t* ref_labels, int64_t self_offset,
                    Workspace& work);

// Packs rows order[begin .. end): unit rows, block sums and codes. False if the norm of any of them is not a
// finite number of type T; those rows become 0.
template <class T>
bool pack_rows(const Plan& plan, const RawRows& raw, const LabelledRow* order, int64_t begin, int64_t end,
               const Workspace& work, const PackedRows& packed);

}  // namespace tcm::cpu
