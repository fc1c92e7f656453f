// A block's shared memory, and who has touched which word of it since when: a barrier too few is found
// wherever two threads touch a word, one of them to write, with nothing between that orders them; atomic
// additions need none among themselves. The result of the run need not be wrong for that. Reading what nobody
// has written, or what is being copied, is found as well.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fibers.h"

namespace tcm::emulator {

constexpr int kLanes = 32;
constexpr int kMostWarps = 8;

// A thread at a moment: how many barriers of its block and of its warp it has passed. Both go on counting
// from block to block, so that what an earlier block did is long past.
struct Moment {
  int thread = -1;
  uint64_t of_block = 0;
  uint64_t of_warp = 0;

  // Whether what was done at this moment is over for the thread of `later`.
  bool is_before(const Moment& later) const {
    const bool one_warp = thread / kLanes == later.thread / kLanes;
    return thread == later.thread || of_block < later.of_block || (one_warp && of_warp < later.of_warp);
  }
};

// Those who have read a word, or added to it.
class Visitors {
 public:
  void enter(const Moment& now) {
    Moment& of_warp = last_[now.thread / kLanes];
    // Of two lanes that come at one moment, the one that stands for both must not be the one that writes
    // next.
    const bool both = of_warp.thread >= 0 && of_warp.thread != now.thread && !of_warp.is_before(now);
    several_ = both || (several_ && !of_warp.is_before(now));
    of_warp = now;
  }

  // One of another thread with nothing between it and `now`.
  std::optional<Moment> unordered(const Moment& now) const {
    for (Moment other : last_) {
      if (other.thread < 0) continue;
      if (several_ && other.thread == now.thread) other.thread ^= 1;
      if (!other.is_before(now)) return other;
    }
    return std::nullopt;
  }

 private:
  std::array<Moment, kMostWarps> last_;  // of each warp
  bool several_ = false;
};

class SharedMemory {
 public:
  static constexpr int kWord = 4;

  void begin_block(int bytes, uint64_t first_moment) {
    if (bytes > capacity_) {
      capacity_ = (bytes + 127) / 128 * 128;
      memory_.reset(new (std::align_val_t(128)) char[capacity_]);
      words_.assign(capacity_ / kWord, {});
    }
    bytes_ = bytes;
    first_moment_ = first_moment;
    std::memset(memory_.get(), 0xFF, bytes);
  }

  // After a fault: copies that were under way are not.
  void forget() { words_.assign(words_.size(), {}); }

  char* at(int offset) { return memory_.get() + offset; }

  void read(const void* from, int bytes, const Moment& now) {
    for_each_word(from, bytes, [&](Word& word, int offset) {
      check_there("reads", word, offset, now);
      if (!word.write.is_before(now)) fail("reads what another thread writes", offset, now, word.write);
      if (const auto add = word.adds.unordered(now)) {
        fail("reads what another thread adds to", offset, now, *add);
      }
      word.reads.enter(now);
    });
  }

  // Atomically.
  void add(const void* to, int bytes, const Moment& now) {
    for_each_word(to, bytes, [&](Word& word, int offset) {
      check_there("adds to", word, offset, now);
      check_free("adds to", word, offset, now);
      word.adds.enter(now);
    });
  }

  void write(const void* to, int bytes, const Moment& now) {
    for_each_word(to, bytes, [&](Word& word, int offset) {
      if (word.being_copied) fail("writes a word that is being copied", offset, now, word.write);
      check_free("writes", word, offset, now);
      if (const auto add = word.adds.unordered(now)) {
        fail("writes what another thread adds to", offset, now, *add);
      }
      word.write = now;
    });
  }

  // From `begin_copy` to `end_copy` the destination belongs to the copy alone.
  void begin_copy(const void* to, int bytes, const Moment& now) {
    write(to, bytes, now);
    for_each_word(to, bytes, [](Word& word, int) { word.being_copied = true; });
  }

  void end_copy(const void* to, int bytes, const Moment& now) {
    for_each_word(to, bytes, [&](Word& word, int) {
      word.being_copied = false;
      word.write = now;
    });
  }

 private:
  struct Word {
    Moment write;
    Visitors reads, adds;
    bool being_copied = false;
  };

  struct Free {
    void operator()(char* p) const { operator delete[](p, std::align_val_t(128)); }
  };

  template <class F>
  void for_each_word(const void* at, int bytes, F f) {
    const auto offset = static_cast<const char*>(at) - memory_.get();
    if (offset < 0 || offset + bytes > bytes_ || offset % kWord != 0 || bytes % kWord != 0) {
      throw Fault("shared memory: " + std::to_string(bytes) + " bytes at byte " + std::to_string(offset) +
                  " of " + std::to_string(bytes_) + " are outside, or not whole words");
    }
    for (int i = 0; i < bytes / kWord; ++i)
      f(words_[offset / kWord + i], static_cast<int>(offset) + i * kWord);
  }

  void check_there(const char* does, const Word& word, int offset, const Moment& now) const {
    if (word.being_copied) fail(std::string(does) + " a word that is being copied", offset, now, word.write);
    if (word.write.thread < 0 || word.write.of_block < first_moment_) {
      fail(std::string(does) + " a word that nobody has written", offset, now, word.write);
    }
  }

  void check_free(const char* does, const Word& word, int offset, const Moment& now) const {
    if (word.write.thread >= 0 && !word.write.is_before(now)) {
      fail(std::string(does) + " what another thread writes", offset, now, word.write);
    }
    if (const auto read = word.reads.unordered(now)) {
      fail(std::string(does) + " what another thread reads", offset, now, *read);
    }
  }

  [[noreturn]] static void fail(const std::string& what, int offset, const Moment& now, const Moment& other) {
    throw Fault(
        "shared memory, byte " + std::to_string(offset) + ": thread " + std::to_string(now.thread) + " " +
        what +
        (other.thread < 0 ? "" : ", with no barrier between (thread " + std::to_string(other.thread) + ")"));
  }

  std::unique_ptr<char[], Free> memory_;
  std::vector<Word> words_;
  int capacity_ = 0;
  int bytes_ = 0;
  uint64_t first_moment_ = 0;
};

}  // namespace tcm::emulator
