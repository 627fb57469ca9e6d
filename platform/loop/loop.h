// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Owners for libuv handles. One loop, one thread: everything here except Loop::post, Loop::stop and Async::send is
/// called on the thread that runs the loop (or before it runs).
///
/// Lifetimes. Timer, FdPoll, Async and Signal are move-less values; the libuv handle and the callable live on the heap
/// until libuv's close callback. After a destructor returns, its callback never runs again. A callback may destroy the
/// very object that called it. Every object must die before its Loop; Loop::~Loop runs the loop dry and CHECKs that
/// nothing is left.

#include <cstdint>
#include <functional>
#include <memory>

#include "base/time.h"

struct uv_loop_s;

namespace mesh::platform {

/// CLOCK_BOOTTIME now: goes on while the machine sleeps. In a loop thread use Loop::now().
[[nodiscard]] Time read_clock();
/// CLOCK_REALTIME now.
[[nodiscard]] WallTime read_wall_clock();

class Loop {
   public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    /// Runs until stop().
    void run();
    /// One turn: waits for the next event if `wait`, else only handles what is due.
    void run_once(bool wait);
    /// Ends run() after the current turn. Threadsafe. A stop() before run() ends that run at once.
    void stop();

    /// Monotonic time, read once a turn.
    [[nodiscard]] Time now() const;
    [[nodiscard]] WallTime wall() const { return read_wall_clock(); }

    /// Runs `task` on the loop thread in a later turn, in order. Threadsafe. False if 65,536 tasks are waiting already.
    /// Tasks that have not run when the loop dies are destroyed without running.
    bool post(std::function<void()> task);

    [[nodiscard]] uv_loop_s* uv();

   private:
    friend class Timer;
    friend class Soon;
    struct State;
    std::unique_ptr<State> state_;
};

/// A place in a ring of objects that wait for the same thing. Leaves it when it dies.
struct RingLink {
    RingLink() = default;
    ~RingLink() { leave(); }
    RingLink(const RingLink&) = delete;
    RingLink& operator=(const RingLink&) = delete;
    /// The last of `ring`, an empty one being alone; leaves another first.
    void join(RingLink& ring) {
        leave();
        prev = ring.prev;
        next = &ring;
        prev->next = ring.prev = this;
    }
    void leave() {
        prev->next = next;
        next->prev = prev;
        prev = next = this;
    }
    [[nodiscard]] bool alone() const { return next == this; }

    RingLink* prev = this;
    RingLink* next = this;
};

/// One shot at a point in time. Keeps to CLOCK_BOOTTIME across suspend. Resolution 1 ms, never early.
class Timer {
   public:
    Timer(Loop& loop, std::function<void()> on_time);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    /// (Re)arms. A time in the past fires in the next turn; Time::never() cancels.
    void set(Time at);
    void set_after(Duration d);
    void cancel();
    [[nodiscard]] bool armed() const;
    /// When it fires; Time::never() if not armed.
    [[nodiscard]] Time deadline() const;

   private:
    friend class Loop;
    struct State;
    State* state_;
};

/// A call in the next turn, without waiting for an event: a Timer of now, for objects of which there are thousands.
class Soon : private RingLink {
   public:
    /// `on_turn(self)` may destroy the very object that called it.
    Soon(Loop& loop, void (*on_turn)(void* self), void* self) : loop_(loop), on_turn_(on_turn), self_(self) {}
    /// Asks for one call; several before it are one.
    void want();

   private:
    friend class Loop;
    Loop& loop_;
    void (*on_turn_)(void*);
    void* self_;
};

/// Readiness of a descriptor somebody else owns; destroy the FdPoll before the descriptor is closed. Level-triggered.
class FdPoll {
   public:
    struct Events {
        bool readable = false;
        bool writable = false;
        bool error = false;  ///< ask the descriptor (SO_ERROR, read); readable and writable are set too
    };
    /// The descriptor is made non-blocking. It must be pollable and not watched twice by one loop. No interest at first.
    FdPoll(Loop& loop, int fd, std::function<void(Events)> on_events);
    ~FdPoll();
    FdPoll(const FdPoll&) = delete;
    FdPoll& operator=(const FdPoll&) = delete;

    void set_interest(bool read, bool write);
    [[nodiscard]] bool wants_read() const;
    [[nodiscard]] bool wants_write() const;

   private:
    struct State;
    State* state_;
};

/// Something to do once when the events and timers of a turn are done, before the loop waits for the next.
class TurnEnd {
   public:
    TurnEnd(Loop& loop, std::function<void()> on_end);
    ~TurnEnd();
    TurnEnd(const TurnEnd&) = delete;
    TurnEnd& operator=(const TurnEnd&) = delete;
    /// Asks for one call; several before it are one.
    void want();

   private:
    struct State;
    State* state_;
};

/// Wakes the loop from any thread. Several send() may become one call.
class Async {
   public:
    Async(Loop& loop, std::function<void()> on_wake);
    ~Async();
    Async(const Async&) = delete;
    Async& operator=(const Async&) = delete;
    /// Threadsafe; the caller sees to it that the Async still lives (Channel does).
    void send();

   private:
    struct State;
    State* state_;
};

/// A POSIX signal as an event of the loop.
class Signal {
   public:
    Signal(Loop& loop, int signum, std::function<void()> on_signal);
    ~Signal();
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

   private:
    struct State;
    State* state_;
};

}  // namespace mesh::platform
