// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <vector>

#include "magicsock/path/peer_paths.h"

namespace mesh::magicsock {
namespace {

Endpoint ep(int host) { return {Addr::v4(203, 0, 113, static_cast<uint8_t>(host)), 41641}; }

/// Traffic on one path for `span`; every ping is answered after the round trip time of its address.
struct Bench {
    SeededRandom random{1};
    Time now{seconds(1000).ns};
    PeerPaths paths{random, now};
    Todo todo;
    std::vector<Duration> rtt;  // of ep(1), ep(2) ...; zero: silent
    struct Answer {
        Time at;
        disco::TxId tx;
    };
    std::vector<Answer> answers;
    std::vector<Endpoint> used;  // best addresses in the order in which they were taken

    void drain() {
        for (const Todo::Probe& p : todo.probes) {
            for (size_t i = 0; i < rtt.size(); ++i)
                if (p.to == ep(static_cast<int>(i) + 1) && rtt[i].ns > 0) answers.push_back({now + rtt[i], p.tx});
        }
        if (todo.call_me_maybe) paths.call_me_maybe_sent(now);
        todo.clear();
        if (paths.best().is_valid() && (used.empty() || used.back() != paths.best())) used.push_back(paths.best());
    }
    void run(Duration span) {
        for (const Time end = now + span; now < end; now = now + milliseconds(1)) {
            if (now.ns % milliseconds(100).ns == 0) {
                paths.note_sent(now, todo);
                if (paths.best().is_valid()) paths.note_received(paths.best(), now);
                drain();
            }
            for (size_t i = 0; i < answers.size();) {
                if (answers[i].at > now) {
                    ++i;
                    continue;
                }
                const disco::TxId tx = answers[i].tx;
                answers.erase(answers.begin() + static_cast<std::ptrdiff_t>(i));
                paths.heard_pong(tx, now, todo);
                drain();
            }
            if (paths.next_timeout() <= now) {
                paths.handle_timeout(now, todo);
                drain();
            }
        }
    }
};

TEST(PeerPathsProof, AFasterAddressTakesOverFromATrustedOne) {
    Bench b;
    b.rtt = {milliseconds(80), {}};
    const std::vector<Endpoint> both{ep(1), ep(2)};
    b.paths.set_netmap(both, b.now, b.todo);
    b.run(seconds(10));
    ASSERT_EQ(b.paths.best(), ep(1));
    b.rtt[1] = milliseconds(8);  // a better way opens
    b.run(seconds(130));
    EXPECT_EQ(b.paths.best(), ep(2));
    EXPECT_TRUE(b.paths.trusted(b.now));
    EXPECT_EQ(b.used, (std::vector<Endpoint>{ep(1), ep(2)})) << "once, without flapping";
}

TEST(PeerPathsProof, ASlowerAddressNeverTakesOverFromATrustedOne) {
    Bench b;
    b.rtt = {milliseconds(80), milliseconds(120)};
    const std::vector<Endpoint> both{ep(1), ep(2)};
    b.paths.set_netmap(both, b.now, b.todo);
    b.run(seconds(130));
    EXPECT_EQ(b.used, (std::vector<Endpoint>{ep(1)}));
}

}  // namespace
}  // namespace mesh::magicsock
