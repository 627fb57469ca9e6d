// SPDX-License-Identifier: BSD-3-Clause
#include "platform/loop/loop.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <atomic>
#include <deque>
#include <mutex>

#include "base/check.h"
#include "platform/fd.h"

namespace mesh::platform {
namespace {

constexpr size_t kMaxTasks = 65536;

int64_t clock_ns(clockid_t clock) {
    timespec ts{};
    CHECK(::clock_gettime(clock, &ts) == 0);
    return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

template <class H>
uv_handle_t* as_handle(H* h) {
    return reinterpret_cast<uv_handle_t*>(h);
}

/// The callable dies here and not in the destructor of the wrapper, which may run inside that very callable.
template <class State>
void close_state(State* s) {
    uv_close(as_handle(&s->handle), [](uv_handle_t* h) { delete static_cast<State*>(h->data); });
}

}  // namespace

Time read_clock() { return {clock_ns(CLOCK_BOOTTIME)}; }
WallTime read_wall_clock() { return {clock_ns(CLOCK_REALTIME)}; }

// ---- Loop

struct Timer::State : RingLink {
    uv_timer_t handle{};
    std::function<void()> fn;
    Loop::State* loop = nullptr;
    Time deadline = Time::never();

    void arm();
};

struct Loop::State {
    uv_loop_t loop{};
    uv_poll_t wake{};
    UniqueFd wake_fd;
    uv_prepare_t before_wait{};
    uv_check_t after_wait{};
    uv_poll_t clock_jump{};
    UniqueFd clock_fd;
    std::atomic<bool> stop_wanted{false};
    std::mutex mutex;
    std::deque<std::function<void()>> tasks;  // guarded by mutex
    bool one_turn = false;                     // in run_once()
    Time now{};                                // zero: not read yet in this turn
    RingLink timers;                           // armed ones; order never reaches an output
    RingLink soon;                             // who wants a call in the next turn
    uv_idle_t call_soon{};

    Time read_now() {
        if (now.is_zero()) now = read_clock();
        return now;
    }

    /// From any thread. libuv's own way has the woken thread spin until the waking one is through with its call.
    void wake_up() const {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t n = ::write(wake_fd.get(), &one, sizeof one);
    }

    void run_tasks() {
        std::deque<std::function<void()>> batch;
        {
            const std::lock_guard lock(mutex);
            batch.swap(tasks);
        }
        for (auto& task : batch) task();
    }

    // libuv's timers stand still while the machine sleeps. A real-time timer that is cancelled when the clock is set,
    // which resume does too, tells us to measure all of them again.
    void watch_clock_jumps() {
        clock_fd = UniqueFd(::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC));
        if (!clock_fd.valid()) return;
        rearm_clock();
        CHECK(uv_poll_init(&loop, &clock_jump, clock_fd.get()) == 0);
        clock_jump.data = this;
        uv_poll_start(&clock_jump, UV_READABLE, [](uv_poll_t* h, int, int) {
            auto* s = static_cast<State*>(h->data);
            uint64_t expirations = 0;
            [[maybe_unused]] const ssize_t n = ::read(s->clock_fd.get(), &expirations, sizeof expirations);
            s->rearm_clock();
            for (RingLink* t = s->timers.next; t != &s->timers; t = t->next) static_cast<Timer::State*>(t)->arm();
        });
        uv_unref(as_handle(&clock_jump));
    }
    void run_soon() {
        RingLink batch;  // who asks again while it is called waits for the turn after this
        while (!soon.alone()) soon.next->join(batch);
        while (!batch.alone()) {
            auto* s = static_cast<Soon*>(batch.next);
            s->leave();
            s->on_turn_(s->self_);  // last: may destroy it
        }
    }
    void rearm_clock() const {
        itimerspec far{};
        far.it_value.tv_sec = (clock_ns(CLOCK_REALTIME) / 1'000'000'000) + 86400L * 365;
        ::timerfd_settime(clock_fd.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, nullptr);
    }
};

Loop::Loop() : state_(std::make_unique<State>()) {
    State* s = state_.get();
    CHECK(uv_loop_init(&s->loop) == 0);
    s->wake_fd = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK(s->wake_fd.valid() && uv_poll_init(&s->loop, &s->wake, s->wake_fd.get()) == 0);
    s->wake.data = s;
    uv_poll_start(&s->wake, UV_READABLE, [](uv_poll_t* h, int, int) {
        auto* st = static_cast<State*>(h->data);
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t n = ::read(st->wake_fd.get(), &count, sizeof count);
        st->run_tasks();  // after the reading: a task that comes now wakes the loop again
        if (st->stop_wanted.load()) uv_stop(&st->loop);
    });
    // now() is read at the first question after the loop slept and after it ran its callbacks: one turn, one time.
    uv_prepare_init(&s->loop, &s->before_wait);
    s->before_wait.data = s;
    uv_prepare_start(&s->before_wait, [](uv_prepare_t* h) { static_cast<State*>(h->data)->now = {}; });
    uv_unref(as_handle(&s->before_wait));
    uv_check_init(&s->loop, &s->after_wait);
    s->after_wait.data = s;
    uv_check_start(&s->after_wait, [](uv_check_t* h) { static_cast<State*>(h->data)->now = {}; });
    uv_unref(as_handle(&s->after_wait));
    uv_idle_init(&s->loop, &s->call_soon);
    s->call_soon.data = s;
    s->watch_clock_jumps();
}

Loop::~Loop() {
    State* s = state_.get();
    {
        std::deque<std::function<void()>> dropped;
        const std::lock_guard lock(s->mutex);
        dropped.swap(s->tasks);
    }
    uv_close(as_handle(&s->wake), nullptr);
    uv_close(as_handle(&s->before_wait), nullptr);
    uv_close(as_handle(&s->after_wait), nullptr);
    uv_close(as_handle(&s->call_soon), nullptr);
    if (s->clock_fd.valid()) uv_close(as_handle(&s->clock_jump), nullptr);
    int rc = UV_EBUSY;
    for (int i = 0; i < 16 && rc == UV_EBUSY; ++i) {
        uv_run(&s->loop, UV_RUN_NOWAIT);
        rc = uv_loop_close(&s->loop);
    }
    CHECK(rc == 0);
}

void Loop::run() {
    state_->now = {};
    while (!state_->stop_wanted.exchange(false)) uv_run(&state_->loop, UV_RUN_DEFAULT);
}

void Loop::run_once(bool wait) {
    state_->now = {};
    state_->one_turn = true;
    uv_run(&state_->loop, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    state_->one_turn = false;
    state_->now = {};
}

void Loop::stop() {
    state_->stop_wanted.store(true);
    state_->wake_up();
}

Time Loop::now() const { return state_->read_now(); }

bool Loop::post(std::function<void()> task) {
    {
        const std::lock_guard lock(state_->mutex);
        if (state_->tasks.size() >= kMaxTasks) return false;
        state_->tasks.push_back(std::move(task));
        if (state_->tasks.size() > 1) return true;  // it has been woken for the first
    }
    state_->wake_up();
    return true;
}

uv_loop_s* Loop::uv() { return &state_->loop; }

// ---- Timer

void Timer::State::arm() {
    const int64_t wait_ns = (deadline - loop->read_now()).ns;
    const uint64_t wait_ms = wait_ns <= 0 ? 0 : static_cast<uint64_t>((wait_ns + 999'999) / 1'000'000);
    uv_timer_start(
        &handle,
        [](uv_timer_t* h) {
            auto* s = static_cast<State*>(h->data);
            if (s->deadline > s->loop->read_now()) {  // libuv counts whole milliseconds from the start of its turn
                s->arm();
                return;
            }
            s->deadline = Time::never();
            s->leave();
            // libuv runs timers before it waits; in a single turn that was the event, so do not wait for another.
            if (s->loop->one_turn) uv_stop(&s->loop->loop);
            s->fn();  // last: may destroy the wrapper
        },
        wait_ms, 0);
}

Timer::Timer(Loop& loop, std::function<void()> on_time) : state_(new State) {
    state_->fn = std::move(on_time);
    state_->loop = loop.state_.get();
    CHECK(uv_timer_init(loop.uv(), &state_->handle) == 0);
    state_->handle.data = state_;
}

Timer::~Timer() {
    state_->leave();
    close_state(state_);
}

void Timer::set(Time at) {
    if (at.is_never()) {
        cancel();
        return;
    }
    if (at == state_->deadline) return;
    state_->deadline = at;
    state_->join(state_->loop->timers);
    state_->arm();
}

void Timer::set_after(Duration d) { set(state_->loop->read_now() + d); }

void Timer::cancel() {
    state_->deadline = Time::never();
    state_->leave();
    uv_timer_stop(&state_->handle);
}

bool Timer::armed() const { return !state_->deadline.is_never(); }
Time Timer::deadline() const { return state_->deadline; }

// ---- Soon

void Soon::want() {
    Loop::State* s = loop_.state_.get();
    if (!alone()) return;
    join(s->soon);
    uv_idle_start(&s->call_soon, [](uv_idle_t* h) {
        auto* st = static_cast<Loop::State*>(h->data);
        if (st->one_turn) uv_stop(&st->loop);  // as for timers
        uv_idle_stop(h);                       // who asks again starts it anew
        st->run_soon();
    });
}

// ---- FdPoll

struct FdPoll::State {
    uv_poll_t handle{};
    std::function<void(Events)> fn;
    int interest = 0;

    void start() {
        uv_poll_start(&handle, interest, [](uv_poll_t* h, int status, int events) {
            auto* s = static_cast<State*>(h->data);
            Events e{(events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0, false};
            if (status < 0) {  // EPOLLERR: libuv has stopped the handle and tells no more than that
                e = {true, true, true};
                s->start();
            }
            s->fn(e);  // last
        });
    }
};

FdPoll::FdPoll(Loop& loop, int fd, std::function<void(Events)> on_events) : state_(new State) {
    state_->fn = std::move(on_events);
    CHECK(uv_poll_init(loop.uv(), &state_->handle, fd) == 0);
    state_->handle.data = state_;
}

FdPoll::~FdPoll() { close_state(state_); }

void FdPoll::set_interest(bool read, bool write) {
    const int wanted = (read ? UV_READABLE : 0) | (write ? UV_WRITABLE : 0);
    if (wanted == state_->interest) return;
    state_->interest = wanted;
    if (wanted == 0)
        uv_poll_stop(&state_->handle);
    else
        state_->start();
}

bool FdPoll::wants_read() const { return (state_->interest & UV_READABLE) != 0; }
bool FdPoll::wants_write() const { return (state_->interest & UV_WRITABLE) != 0; }

// ---- Async

struct Async::State {
    uv_async_t handle{};
    std::function<void()> fn;
};

Async::Async(Loop& loop, std::function<void()> on_wake) : state_(new State) {
    state_->fn = std::move(on_wake);
    CHECK(uv_async_init(loop.uv(), &state_->handle,
                        [](uv_async_t* h) { static_cast<State*>(h->data)->fn(); }) == 0);
    state_->handle.data = state_;
}

Async::~Async() { close_state(state_); }
void Async::send() { uv_async_send(&state_->handle); }

// ---- TurnEnd

struct TurnEnd::State {
    uv_prepare_t handle{};
    std::function<void()> fn;
};

TurnEnd::TurnEnd(Loop& loop, std::function<void()> on_end) : state_(new State) {
    state_->fn = std::move(on_end);
    CHECK(uv_prepare_init(loop.uv(), &state_->handle) == 0);
    state_->handle.data = state_;
}

TurnEnd::~TurnEnd() { close_state(state_); }

void TurnEnd::want() {
    if (uv_is_active(reinterpret_cast<uv_handle_t*>(&state_->handle)) != 0) return;
    uv_prepare_start(&state_->handle, [](uv_prepare_t* h) {
        uv_prepare_stop(h);
        static_cast<State*>(h->data)->fn();
    });
}

// ---- Signal

struct Signal::State {
    uv_signal_t handle{};
    std::function<void()> fn;
};

Signal::Signal(Loop& loop, int signum, std::function<void()> on_signal) : state_(new State) {
    state_->fn = std::move(on_signal);
    CHECK(uv_signal_init(loop.uv(), &state_->handle) == 0);
    state_->handle.data = state_;
    CHECK(uv_signal_start(
              &state_->handle, [](uv_signal_t* h, int) { static_cast<State*>(h->data)->fn(); }, signum) == 0);
}

Signal::~Signal() { close_state(state_); }

}  // namespace mesh::platform
