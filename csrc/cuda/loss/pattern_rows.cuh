// The rows that patterns are multiplied with, 32 at a time: from global memory through registers, where they
// are scaled and split, into one of two buffers in shared memory.
#pragma once

#include "cuda/device/rows.cuh"

namespace tcm::cuda {

// How rows are multiplied with a pattern: the type of rows, the type and number of their parts, the columns
// of the embeddings per block, and whether the pattern carries 1/norm.
template <class RowType, class PartType, int kNumber, int kColumns, bool kCarriesInverse>
struct Way {
  using Row = RowType;
  using Part = PartType;
  static constexpr int kParts = kNumber;
  static constexpr int kWidth = kColumns;
  static constexpr bool kWeights = kCarriesInverse;
};
struct BFloat16Weights : Way<BFloat16, BFloat16, 1, 128, true> {};
struct HalfScaled : Way<Half, Half, 1, 128, false> {};
template <int kNumber>
struct Float32Parts : Way<float, BFloat16, kNumber, 64, false> {};

constexpr int kPatternRows = 32;  // of the other side at a time: one word of the pattern
constexpr int kPatternThreads = 128;
constexpr int kFactorBytes = kPatternRows * static_cast<int>(sizeof(float));
template <class Way>
constexpr int kPartBytes = kPatternRows * Way::kWidth * 2;
template <class Way>
constexpr int kPatternBufferBytes = Way::kParts * kPartBytes<Way> + kFactorBytes;
template <class Way>
constexpr int kPatternBytes = 2 * kPatternBufferBytes<Way>;

constexpr int kNone = -1;

template <class Way>
class PatternRows {
 public:
  using Row = typename Way::Row;
  using Part = typename Way::Part;

  // Takes columns first_d to first_d + kWidth of a side's rows.
  TCM_DEVICE PatternRows(const Side& side, const Shape& shape, int first_d)
      : side_(side), shape_(shape), first_d_(first_d) {}

  // Looks up the row numbers of the 32 positions from `first` on; none where `first` is kNone.
  TCM_DEVICE void find(int first) {
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int position = first + row(u);
      row_number_[u] = first != kNone && position < side_.n ? static_cast<int>(side_.order[position]) : kNone;
    }
  }

  // Starts loading the rows that were looked up last, with the same `first`.
  TCM_DEVICE void load(int first) {
    if (first == kNone) return;
    const int d = first_d_ + chunk() * 8;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const bool there = row_number_[u] != kNone;
      factor_[u] = there ? side_.inverse[first + row(u)] : 0.0f;
      const Row* from = static_cast<const Row*>(side_.x) + int64_t{max(row_number_[u], 0)} * shape_.dim;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        loaded_[u][c] = there ? load_chunk(from, d + c * kPerChunk<Row>, shape_) : Chunk{};
      }
    }
  }

  // Stores the loaded rows in a buffer. A barrier has to follow.
  TCM_DEVICE void store(int buffer) const {
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const int at = buffer_at(buffer) + chunk_at(row(u), chunk());
      if constexpr (Way::kWeights) {
        shared_memory<Chunk>(at)[0] = loaded_[u][0];
      } else {
        Chunk parts[Way::kParts] = {};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float rest = element(loaded_[u][i / kPerChunk<Row>], i % kPerChunk<Row>, Row()) * factor_[u];
#pragma unroll
          for (int p = 0; p < Way::kParts; ++p) {
            const Part part(rest);
            parts[p].word[i / 2] |= raw_bits(part) << (i % 2 * 16);
            rest -= static_cast<float>(part);
          }
        }
#pragma unroll
        for (int p = 0; p < Way::kParts; ++p) shared_memory<Chunk>(at + p * kPartBytes<Way>)[0] = parts[p];
      }
      if (chunk() == 0) factors(buffer)[row(u)] = factor_[u];
    }
  }

  // Fragments of rows [k, k + 16) and the 16 columns from chunk j on, of one part.
  TCM_DEVICE void load_fragments(uint32_t (&b)[4], int buffer, int part, int k, int j) const {
    const int at = part * kPartBytes<Way> + chunk_at(k + lane_index() % 16, j + lane_index() / 16);
    load_matrices_transposed(b, shared_memory<char>(buffer_at(buffer)), at);
  }

  // The values that stand for 1 in the pattern's columns k and k + 1: 1, or the 1/norm of these two rows.
  TCM_DEVICE uint32_t ones(int buffer, int k) const {
    if constexpr (Way::kWeights) {
      const float even = factors(buffer)[k], odd = factors(buffer)[k + 1];
      return raw_bits(Part(even)) | raw_bits(Part(odd)) << 16;
    } else {
      const uint32_t one = raw_bits(Part(1.0f));
      return one | one << 16;
    }
  }

 private:
  static constexpr int kLoads = kPatternRows * Way::kWidth / 8 / kPatternThreads;  // of eight elements
  static constexpr int kChunks = 8 / kPerChunk<Row>;
  static constexpr int kRowThreads = Way::kWidth / 8;  // per row, with eight elements each

  TCM_DEVICE static int row(int u) {
    return thread_index() / kRowThreads + u * (kPatternThreads / kRowThreads);
  }
  TCM_DEVICE static int chunk() { return thread_index() % kRowThreads; }
  TCM_DEVICE static int buffer_at(int buffer) { return buffer * kPatternBufferBytes<Way>; }
  TCM_DEVICE static SharedArray<float> factors(int buffer) {
    return shared_memory<float>(buffer_at(buffer) + Way::kParts * kPartBytes<Way>);
  }
  // Byte offset of a row's chunk within a part, swizzled so that ldmatrix has no bank conflicts.
  TCM_DEVICE static int chunk_at(int row, int chunk) {
    return row * Way::kWidth * 2 + (chunk ^ (row % 8)) * kChunk;
  }

  const Side& side_;
  const Shape& shape_;
  int first_d_;
  int row_number_[kLoads];
  float factor_[kLoads];
  Chunk loaded_[kLoads][kChunks];
};

}  // namespace tcm::cuda
