// A block's shared memory, with a record of which threads have touched each word, and when. A missing barrier
// is found wherever two threads touch a word, one of them to write, with nothing between that orders them,
// even if the result of the run is right. Atomic additions need no order among themselves. Reading what no
// thread has written, or what is being copied, is found as well.
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

// A thread at a moment: how many barriers of its block and of its warp it has passed. Both counts go on from
// block to block, so that whatever an earlier block did comes before.
struct Moment {
  int thread = -1;
  uint64_t of_block = 0;
  uint64_t of_warp = 0;

  // Whether this moment is ordered before `later`: by a barrier, or within one thread.
  bool is_before(const Moment& later) const {
    const bool one_warp = thread / kLanes == later.thread / kLanes;
    return thread == later.thread || of_block < later.of_block || (one_warp && of_warp < later.of_warp);
  }
};

// The threads that have read a word, or added to it: the latest of each warp.
class Visitors {
 public:
  void enter(const Moment& now) {
    Moment& of_warp = last_[now.thread / kLanes];
    // Of several lanes that come unordered only the last is kept. `several_` notes that, so that the others
    // are still found where that lane itself writes next.
    const bool both = of_warp.thread >= 0 && of_warp.thread != now.thread && !of_warp.is_before(now);
    several_ = both || (several_ && !of_warp.is_before(now));
    of_warp = now;
  }

  // A visit of another thread that nothing orders before `now`, if there is one.
  std::optional<Moment> unordered(const Moment& now) const {
    for (Moment other : last_) {
      if (other.thread < 0) continue;
      if (several_ && other.thread == now.thread) other.thread ^= 1;
      if (!other.is_before(now)) return other;
    }
    return std::nullopt;
  }

 private:
  std::array<Moment, kMostWarps> last_;  // by warp
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

  // After a fault: forgets all visits and the copies in flight.
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

  // An atomic addition.
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
