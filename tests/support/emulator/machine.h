// The machine of the emulator: the running block, its barriers, operations of its warps, its shared memory.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device/launch.h"
#include "fibers.h"
#include "shared_memory.h"

namespace tcm::emulator {

// How often the host has launched a kernel or cleared memory.
inline int64_t launches = 0;

// The running block, and the machine around it.
class Machine {
 public:
  static Machine& get() {
    thread_local Machine machine;
    return machine;
  }

  struct Warp {
    Meeting meeting;
    char in[kLanes][64];
    char out[kLanes][64];
  };

  struct Copy {
    char* to;
    const void* from;
    int bytes;
  };

  struct Thread {
    uint64_t of_block = 0;
    uint64_t of_warp = 0;
    std::deque<std::vector<Copy>> groups;  // committed, the oldest first
    std::vector<Copy> copies;              // not yet committed
  };

  cuda::Grid grid{0};
  int64_t block = 0;
  SharedMemory shared;

  void run(const char* name, cuda::Grid size, int count, int shared_bytes,
           const std::function<void()>& kernel) {
    grid = size;
    if (count % kLanes != 0 || count > kMostWarps * kLanes) throw Fault("a block has whole warps, at most 8");
    for (block = 0; block < size.x * size.y * size.z; ++block) {
      begin_block(count, shared_bytes);
      try {
        fibers_.run(count, kernel);
        for (const Thread& thread : threads_) {
          for (const auto& group : thread.groups) {
            if (!group.empty()) throw Fault("a thread has ended without waiting for its copies");
          }
        }
      } catch (const Fault& fault) {
        shared.forget();
        throw Fault("kernel " + std::string(name) + ", block " + std::to_string(block) + ": " + fault.what());
      }
      for (const Thread& thread : threads_) moment_ = std::max({moment_, thread.of_block, thread.of_warp});
    }
  }

  int thread() const { return fibers_.current(); }
  Moment now() const { return {thread(), threads_[thread()].of_block, threads_[thread()].of_warp}; }
  Thread& own() { return threads_[thread()]; }

  // A barrier. Returns the disjunction of what the threads pass.
  bool sync_block(bool value, const char* name) {
    any_[own().of_block & 1] |= value;
    const uint64_t turn = own().of_block;
    fibers_.meet(all_, name, [&] { any_[(turn + 1) & 1] = false; });
    ++own().of_block;
    ++own().of_warp;
    return any_[turn & 1];
  }

  // An operation of a warp: `compute` makes the lanes' results from what they pass.
  template <class Out, class In, class F>
  Out together(const char* name, const In& in, F compute) {
    static_assert(sizeof(In) <= sizeof(Warp::in[0]) && sizeof(Out) <= sizeof(Warp::out[0]));
    Warp& warp = warps_[thread() / kLanes];
    const int lane = thread() % kLanes;
    std::memcpy(warp.in[lane], &in, sizeof(In));
    fibers_.meet(warp.meeting, name, [&] {
      In all[kLanes];
      Out results[kLanes];
      for (int i = 0; i < kLanes; ++i) std::memcpy(&all[i], warp.in[i], sizeof(In));
      compute(all, results);
      for (int i = 0; i < kLanes; ++i) std::memcpy(warp.out[i], &results[i], sizeof(Out));
    });
    // The warp cannot complete another operation before all lanes are here: a late lane finds its result.
    Out out;
    std::memcpy(&out, warp.out[lane], sizeof(Out));
    return out;
  }

 private:
  void begin_block(int count, int shared_bytes) {
    ++moment_;
    shared.begin_block(shared_bytes, moment_);
    threads_.assign(count, {moment_, moment_, {}, {}});
    warps_.assign(count / kLanes, {});
    for (Warp& warp : warps_) warp.meeting.expected = kLanes;
    all_ = {count};
    any_[0] = any_[1] = false;
  }

  Fibers fibers_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  Meeting all_;
  bool any_[2];
  uint64_t moment_ = 0;
};

inline Machine& machine() { return Machine::get(); }

// A reference to an element of shared memory whose every access is checked.
template <class T>
class Element {
 public:
  explicit Element(T* at) : at_(at) {}
  operator T() const {
    machine().shared.read(at_, sizeof(T), machine().now());
    return *at_;
  }
  Element& operator=(const T& value) {
    machine().shared.write(at_, sizeof(T), machine().now());
    *at_ = value;
    return *this;
  }
  Element& operator=(const Element& other) { return *this = T(other); }

 private:
  T* at_;
};

}  // namespace tcm::emulator
