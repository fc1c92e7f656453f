// A block of threads on one thread of the CPU: each is a fiber, which runs until it has to wait for others.
//
// Fibers start by ucontext and switch by setjmp and longjmp, which make no system call. A fiber that waits
// names the operation. Where no fiber can go on, or two that have to meet wait in different operations, the
// kernel is at fault.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace tcm::emulator {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Where `expected` fibers wait for each other. The last to arrive lets the others go on.
struct Meeting {
  int expected = 0;
  int arrived = 0;
  uint64_t number = 0;  // how often they have met
  const char* name = nullptr;
};

class Fibers {
 public:
  // Runs `body` in fibers 0 to count - 1 until all have ended; throws what one of them threw.
  void run(int count, const std::function<void()>& body) {
    while (static_cast<int>(fibers_.size()) < count) fibers_.push_back(std::make_unique<Fiber>());
    body_ = &body;
    error_ = nullptr;
    for (int i = 0; i < count; ++i) fibers_[i]->begin();
    for (int alive = count; alive > 0;) {
      bool moved = false;
      for (current_ = 0; current_ < count && !error_; ++current_) {
        Fiber& fiber = *fibers_[current_];
        if (fiber.ended || (fiber.waits_for && fiber.waits_for->number == fiber.ticket)) continue;
        moved = true;
        resume(fiber);
        alive -= fiber.ended;
      }
      if (!error_ && !moved) error_ = std::make_exception_ptr(Fault(stuck()));
      if (error_) std::rethrow_exception(error_);
    }
  }

  int current() const { return current_; }

  // Returns when all expected fibers have arrived; the last to arrive calls `complete` first.
  template <class F>
  void meet(Meeting& meeting, const char* name, F complete) {
    if (meeting.arrived == 0) {
      meeting.name = name;
    } else if (meeting.name != name) {
      throw Fault(std::string("threads that belong together are at ") + meeting.name + " and at " + name);
    }
    if (++meeting.arrived == meeting.expected) {
      meeting.arrived = 0;
      complete();
      ++meeting.number;
      return;
    }
    Fiber& fiber = *fibers_[current_];
    fiber.waits_for = &meeting;
    fiber.ticket = meeting.number;
    if (!_setjmp(fiber.here)) _longjmp(scheduler_, 1);
    fiber.waits_for = nullptr;
  }

 private:
  static constexpr size_t kStackBytes = 512 * 1024;

  struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    jmp_buf here;
    ucontext_t context;
    bool begun, ended;
    const Meeting* waits_for;
    uint64_t ticket;
    void begin() {
      begun = ended = false;
      waits_for = nullptr;
    }
  };

  void resume(Fiber& fiber) {
    if (_setjmp(scheduler_)) return;
    if (fiber.begun) _longjmp(fiber.here, 1);
    fiber.begun = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    const auto address = reinterpret_cast<uintptr_t>(this);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Fibers::enter), 2,
                static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
    setcontext(&fiber.context);
  }

  static void enter(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Fibers*>(uintptr_t{high} << 32 | low);
    try {
      (*self->body_)();
    } catch (...) {
      self->error_ = std::current_exception();
    }
    self->fibers_[self->current_]->ended = true;
    _longjmp(self->scheduler_, 1);
  }

  std::string stuck() const {
    int i = 0;
    while (fibers_[i]->ended) ++i;  // one has not ended, or nothing would be stuck
    return "thread " + std::to_string(i) + " waits at " + fibers_[i]->waits_for->name +
           " for others, which have ended or wait elsewhere";
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  jmp_buf scheduler_;
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr error_;
  int current_ = 0;
};

}  // namespace tcm::emulator
