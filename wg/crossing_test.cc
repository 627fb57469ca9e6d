// SPDX-License-Identifier: BSD-3-Clause
// Two nodes that initiate to each other at the same moment, over a wire that delays, reorders and loses. Every
// interleaving of the first choices is tried by running the same start again with another list of choices; afterwards
// the wire is good, and both must soon talk both ways. The other side is one of ours, or a model of an engine with a
// single handshake slot, as others have it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "wg/testing.h"

namespace mesh::wg {
namespace {

using testing::kStart;
using testing::kWallStart;
using testing::Node;
using testing::type_of;

/// What the harness needs of an engine.
class End {
   public:
    virtual ~End() = default;
    virtual void say(Time now) = 0;
    virtual void deliver(Bytes m, Time now) = 0;
    virtual Time next_timeout() = 0;
    virtual void handle_timeout(Time now) = 0;
    std::deque<Bytes> out;
    size_t heard = 0;
};

class Ours : public End {
   public:
    Ours(uint64_t seed, NodePrivate key, const NodePublic& other, Time now, bool calm)
        : node_(seed, calm ? now - seconds(60) : now) {
        node_.device.set_private_key(key, calm ? now - seconds(60) : now);
        node_.device.set_wall_clock(kWallStart + (now - kStart), now);
        node_.device.add_peer(0, other);
    }
    void say(Time now) override {
        node_.transmit(0, "data", now);
        flush();
    }
    void deliver(Bytes m, Time now) override {
        const Device::Opened o = node_.deliver(std::move(m), now);
        if (o.kind == Device::Opened::kData) ++heard;
        if (o.drop == DropReason::kUnknownIndex) node_.device.unknown_index_from(0, now);
        flush();
    }
    Time next_timeout() override { return node_.device.next_timeout(); }
    void handle_timeout(Time now) override {
        node_.device.handle_timeout(now);
        flush();
    }
    [[nodiscard]] const DeviceCounters& counters() const { return node_.device.counters(); }

   private:
    void flush() {
        while (!node_.sent.empty()) out.push_back(node_.take());
    }
    Node node_;
};

/// One handshake slot for both roles, 5 s between initiations, previous sessions dropped by an answer: the whitepaper
/// to the letter.
class SingleSlot : public End {
   public:
    SingleSlot(uint64_t seed, NodePrivate key, const NodePublic& other, Time now) : random_(seed), other_(other) {
        own_.secret.bytes() = key.secret();
        own_.key = key.public_key();
        EXPECT_TRUE(static_shared(shared_, own_, other));
        stamps_.set_wall(kWallStart + (now - kStart), now);
    }
    void say(Time now) override {
        if (current_ && current_->can_send(now)) {
            seal(1, now);
            if (stale_at_.is_never()) stale_at_ = now + seconds(15);
            return;
        }
        staged_ = true;
        initiate(now, false);
    }
    void deliver(Bytes m, Time now) override {
        switch (type_of(m)) {
            case kTypeInitiation: return on_initiation(m, now);
            case kTypeResponse: return on_response(m, now);
            case kTypeTransport: return on_data(m, now);
            default: return;
        }
    }
    Time next_timeout() override { return min(retry_at_, stale_at_); }
    void handle_timeout(Time now) override {
        if (retry_at_ <= now) initiate(now, true);
        if (stale_at_ <= now) {
            stale_at_ = Time::never();
            initiate(now, false);
        }
    }

   private:
    enum class Slot : uint8_t { kEmpty, kCreated };

    void initiate(Time now, bool retry) {
        if (!retry && !last_sent_.is_zero() && now - last_sent_ < kRekeyTimeout) return;
        last_sent_ = now;
        retry_at_ = now + kRekeyTimeout + milliseconds(random_.below(334));
        stamp_ = stamps_.next(stamp_, now);
        Initiation msg;
        ASSERT_TRUE(create_initiation(msg, slot_, random_, own_, other_, shared_, random_.u32(), tai64n(stamp_)));
        slot_state_ = Slot::kCreated;
        jar_.write_macs({reinterpret_cast<uint8_t*>(&msg), sizeof msg}, other_, now);
        out.push_back(to_bytes({reinterpret_cast<uint8_t*>(&msg), sizeof msg}));
    }
    void on_initiation(const Bytes& m, Time now) {
        OpenedInitiation o;
        const auto& msg = *reinterpret_cast<const Initiation*>(m.data());
        ASSERT_TRUE(open_static(o, msg, own_) && open_stamp(o, msg, shared_));
        if (o.stamp <= their_stamp_) return;
        if (!their_last_.is_zero() && now - their_last_ <= kInitiationGap) return;
        their_stamp_ = o.stamp;
        their_last_ = now;
        slot_state_ = Slot::kEmpty;  // our own initiation is forgotten here
        Response r;
        TransportKeys keys;
        const uint32_t index = random_.u32();
        ASSERT_TRUE(create_response(r, keys, random_, o, index));
        last_sent_ = now;
        next_ = std::make_unique<Session>(keys, Role::kResponder, index, o.remote_index, 0, now);
        previous_.reset();
        stale_at_ = Time::never();
        jar_.write_macs({reinterpret_cast<uint8_t*>(&r), sizeof r}, other_, now);
        out.push_back(to_bytes({reinterpret_cast<uint8_t*>(&r), sizeof r}));
    }
    void on_response(const Bytes& m, Time now) {
        const auto& msg = *reinterpret_cast<const Response*>(m.data());
        TransportKeys keys;
        if (slot_state_ != Slot::kCreated || load_le32(msg.receiver) != slot_.index) return;
        if (!consume_response(keys, msg, slot_, own_)) return;
        slot_state_ = Slot::kEmpty;
        auto s = std::make_unique<Session>(keys, Role::kInitiator, slot_.index, load_le32(msg.sender), 0, now);
        previous_ = next_ ? std::move(next_) : std::move(current_);
        current_ = std::move(s);
        complete();
        if (staged_)
            say_staged(now);
        else
            seal(0, now);
    }
    void on_data(Bytes& m, Time now) {
        for (std::unique_ptr<Session>* s : {&next_, &current_, &previous_}) {
            if (!*s || (*s)->local_index() != load_le32(m.data() + 4)) continue;
            if ((*s)->open(m, now) != DropReason::kNone) return;
            stale_at_ = Time::never();
            if (s == &next_) {
                previous_ = std::move(current_);
                current_ = std::move(next_);
                complete();
                if (staged_) say_staged(now);
            }
            if (m.size() > kDataOverhead) ++heard;
            return;
        }
    }
    void complete() {
        retry_at_ = Time::never();
        stale_at_ = Time::never();
    }
    void say_staged(Time now) {
        staged_ = false;
        say(now);
    }
    void seal(size_t n, Time) {
        uint8_t slot[kDataOverhead + kPadding] = {};
        const size_t len = current_->seal(slot, n, 0);
        out.push_back(to_bytes({slot, len}));
    }

    SeededRandom random_;
    Identity own_;
    NodePublic other_;
    Secret shared_;
    StampClock stamps_;
    InitiatorHandshake slot_;
    Slot slot_state_ = Slot::kEmpty;
    CookieJar jar_;
    Stamp their_stamp_{};
    Time their_last_{}, last_sent_{}, retry_at_ = Time::never(), stale_at_ = Time::never();
    uint64_t stamp_ = 0;
    std::unique_ptr<Session> previous_, current_, next_;
    bool staged_ = false;
};

enum class Other : uint8_t { kOurs, kSingleSlot };
enum class Scene : uint8_t { kFresh, kRekey, kRestarted };

struct Case {
    Other other;
    Scene scene;
    bool smaller_key;  ///< `a`'s
    bool calm;
};

/// One run: choices are taken from `path`; where it ends, choice 0 is taken and noted, so that the caller can count up.
class Trial {
   public:
    Trial(const Case& c, size_t depth) : case_(c), depth_(depth) {}

    /// Ms of good wire until both have heard each other from then on; -1: not within 40 s.
    int64_t operator()(std::vector<size_t>& path, std::vector<size_t>& widths) {
        build();
        wire_.clear();
        widths.clear();
        collect();
        for (size_t step = 0; step < depth_; ++step) {
            // Deliver any, lose any, or let time pass.
            const size_t n = std::min<size_t>(wire_.size(), 4);
            widths.push_back(2 * n + 1);
            if (path.size() <= step) path.push_back(0);
            const size_t choice = path[step];
            if (choice < n) {
                const Item m = wire_[choice];
                wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(choice));
                now_ = now_ + milliseconds(25);
                (m.to_b ? *b_ : *a_).deliver(m.bytes, now_);
            } else if (choice < 2 * n) {
                wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(choice - n));
            } else {
                pass(min(a_->next_timeout(), b_->next_timeout()));
            }
            collect();
        }
        return heal();
    }

   private:
    struct Item {
        bool to_b;
        Bytes bytes;
    };

    void build() {
        SeededRandom keys(11);
        NodePrivate one = NodePrivate::generate(keys), two = NodePrivate::generate(keys);
        if ((one.public_key() < two.public_key()) != case_.smaller_key) std::swap(one, two);
        now_ = kStart + seconds(100);
        const auto make_b = [&](uint64_t seed) -> std::unique_ptr<End> {
            if (case_.other == Other::kOurs)
                return std::make_unique<Ours>(seed, two, one.public_key(), now_, case_.calm);
            return std::make_unique<SingleSlot>(seed, two, one.public_key(), now_);
        };
        a_ = std::make_unique<Ours>(21, one, two.public_key(), now_, case_.calm);
        b_ = make_b(22);
        if (case_.scene != Scene::kFresh) {
            a_->say(now_);
            reliable(milliseconds(500), true);
            now_ = now_ + (case_.scene == Scene::kRekey ? seconds(185) : seconds(5));
            if (case_.scene == Scene::kRestarted)
                a_ = std::make_unique<Ours>(23, one, two.public_key(), now_, case_.calm);
        }
        a_->heard = b_->heard = 0;
        a_->say(now_);
        b_->say(now_);
    }
    void collect() {
        for (; !a_->out.empty(); a_->out.pop_front()) wire_.push_back({true, a_->out.front()});
        for (; !b_->out.empty(); b_->out.pop_front()) wire_.push_back({false, b_->out.front()});
    }
    void pass(Time to) {
        if (to.is_never()) return;
        now_ = max(now_, to);
        a_->handle_timeout(now_);
        b_->handle_timeout(now_);
    }
    /// A wire with a delay of 10 ms, in order.
    void reliable(Duration d, bool quiet) {
        const Time end = now_ + d;
        Time next_word = now_;
        while (now_ < end) {
            collect();
            std::deque<Item> batch;
            batch.swap(wire_);
            now_ = now_ + milliseconds(10);
            for (Item& m : batch) (m.to_b ? *b_ : *a_).deliver(std::move(m.bytes), now_);
            a_->handle_timeout(now_);
            b_->handle_timeout(now_);
            if (!quiet && now_ >= next_word) {
                a_->say(now_);
                b_->say(now_);
                next_word = now_ + milliseconds(200);
            }
        }
    }
    int64_t heal() {
        const Time from = now_;
        int64_t healed = -1;
        for (int i = 0; i < 200; ++i) {
            const size_t a = a_->heard, b = b_->heard;
            reliable(milliseconds(200), false);
            const bool good = a_->heard > a && b_->heard > b;
            if (!good) healed = -1;
            if (good && healed < 0) healed = (now_ - from).millis();
            // Three quiet seconds after that are enough: nothing that could still go wrong waits longer, except what
            // the unanswered-data timers would start, and those do not run while both hear each other.
            if (healed >= 0 && (now_ - from).millis() - healed > 3000) return healed;
        }
        return healed;
    }

    Case case_;
    size_t depth_;
    Time now_{};
    std::unique_ptr<End> a_, b_;
    std::deque<Item> wire_;
};

std::string text(const std::vector<size_t>& path) {
    std::string s;
    for (const size_t c : path) s += std::to_string(c) + " ";
    return s;
}

bool full() { return std::getenv("MESH_FULL") != nullptr; }

/// Counts through all paths of `depth`; returns the longest time to heal.
int64_t enumerate(const Case& c, size_t depth, size_t& runs) {
    Trial trial(c, depth);
    std::vector<size_t> path, widths;
    int64_t worst = 0;
    for (;;) {
        const int64_t ms = trial(path, widths);
        ++runs;
        EXPECT_GE(ms, 0) << "never healed: " << text(path);
        worst = std::max(worst, ms < 0 ? 1'000'000 : ms);
        if (ms < 0) return worst;
        size_t i = path.size();
        while (i > 0 && path[i - 1] + 1 >= widths[i - 1]) --i;
        if (i == 0) return worst;
        path.resize(i);
        ++path[i - 1];
    }
}

class Crossing : public ::testing::TestWithParam<Case> {};

TEST_P(Crossing, EveryInterleavingEndsWithBothTalking) {
    crypto::init();
    size_t runs = 0;
    const int64_t worst = enumerate(GetParam(), full() ? 6 : 3, runs);
    RecordProperty("runs", static_cast<int>(runs));
    RecordProperty("worst_ms", static_cast<int>(worst));
    // With a peer of the other kind that lost everything only its own 15 s timer may help, if we are calm too.
    EXPECT_LE(worst, GetParam().other == Other::kOurs && !GetParam().calm ? 4000 : 16'000);
}

TEST_P(Crossing, WithoutLossNobodyWaitsForARetry) {
    crypto::init();
    Trial trial(GetParam(), 0);
    std::vector<size_t> path, widths;
    // After a restart the first word of the other side goes to the session that is gone.
    EXPECT_LE(trial(path, widths), GetParam().scene == Scene::kRestarted ? 400 : 200);
}

TEST_P(Crossing, RandomWalksEndWithBothTalking) {
    crypto::init();
    SeededRandom r(1234);
    int64_t worst = 0;
    for (int n = 0; n < (full() ? 3000 : 20); ++n) {
        const size_t depth = 6 + r.below(12);
        Trial trial(GetParam(), depth);
        std::vector<size_t> path, widths;
        for (size_t i = 0; i < depth; ++i) path.push_back(r.below(9));
        // Choices beyond the width mean "let time pass": a trial takes any number.
        const int64_t ms = trial(path, widths);
        ASSERT_GE(ms, 0) << "never healed: " << text(path);
        worst = std::max(worst, ms);
    }
    RecordProperty("worst_ms", static_cast<int>(worst));
    EXPECT_LE(worst, 16'000);
}

INSTANTIATE_TEST_SUITE_P(All, Crossing,
                         ::testing::ValuesIn([] {
                             std::vector<Case> all;
                             for (const Other o : {Other::kOurs, Other::kSingleSlot})
                                 for (const Scene s : {Scene::kFresh, Scene::kRekey, Scene::kRestarted})
                                     for (const bool smaller : {false, true})
                                         for (const bool calm : {false, true}) all.push_back({o, s, smaller, calm});
                             return all;
                         }()),
                         [](const ::testing::TestParamInfo<Case>& which) {
                             const Case& c = which.param;
                             return std::string(c.other == Other::kOurs ? "Ours" : "SingleSlot") +
                                    (c.scene == Scene::kFresh ? "Fresh" : c.scene == Scene::kRekey ? "Rekey" : "Restarted") +
                                    (c.smaller_key ? "Smaller" : "Larger") + (c.calm ? "Calm" : "JustStarted");
                         });

}  // namespace
}  // namespace mesh::wg
