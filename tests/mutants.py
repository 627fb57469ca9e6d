#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Breaks the code on purpose, one fault at a time, and shows that a named test notices each.

    tests/mutants.py [--list] [--texts] [--quick] [NAME...]      NAME: part of a mutant's name

Works on a copy of the tree in build/mutants/src, never on the tree itself. Builds without optimization and only the test
binaries that are named, each mutant incrementally. First every named test must pass on the unbroken copy. A mutant whose
text is no longer in its file is a failure too: the table below has to follow the code."""
import os
import pathlib
import subprocess
import sys
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "build/mutants"
SRC, OUT = WORK / "src", WORK / "out"


@dataclass
class Mutant:
    name: str     # what the broken program would do
    file: str
    old: str      # must occur exactly once
    new: str
    binary: str
    test: str     # the test that notices
    root: bool = False
    also: tuple = ()   # further (old, new) in the same file
    quick: bool = False  # also with --quick, which every run of the tests does

    def edits(self):
        return ((self.old, self.new), *self.also)

    def path(self):
        return SRC / self.file


MUTANTS = [
    # userspace networking
    Mutant("user: checksums are not looked at", "netstack/user/user_stack.cc",
           "(!without && !l4_checksum_ok(packet, p.version, p.ip_len, p.proto))", "false", "userstack_test", "UserStack.JunkIsCountedAndHarmless"),
    Mutant("user: lwIP reads behind the end of a header", "netstack/user/user_stack.cc",
           "if (!tcp_options_ok(packet.subspan(p.ip_len, p.l4_len))) return bad();", "", "userstack_test", "UserStack.OptionsThatEndInTheMiddleAreNotRead"),
    Mutant("user: an exit node's own programs are the internet", "netstack/user/user_stack.cc", "if (is_martian(p.src) || is_martian(p.dst)) return bad();", "",
           "userstack_test", "UserStack.NobodyReachesTheHostByAddressesThatMeanIt"),
    Mutant("user: one peer may shut all others out", "netstack/user/user_stack.cc", "held_ < kMaxHeld && of_peer < kMaxHeldPerPeer", "held_ < kMaxHeld",
           "userstack_test", "UserStack.TablesAreBounded"),
    Mutant("user: what is not consumed does not hold the sender", "netstack/user/user_stack.cc",
           "flows_[slot].unconsumed += bytes.size();", "tcp_recved(flows_[slot].pcb, static_cast<u16_t>(bytes.size()));",
           "userstack_test", "UserStack.WindowHoldsTheSender"),
    # a relay of several loops
    Mutant("derper: other loops do not hear that a client left", "derper/relay.cc",
           "if (loop != self_) say(loop, {.kind = Note::Kind::kGone, .key = key});", "",
           "derper_lib_test", "Relays.APacketForAKeyOfAnotherLoopArrivesAndItsAnswersComeBack"),
    Mutant("derper: who moved to another relay of the region is gone", "derper/relay.cc", "    else if (!front_reaches(key))\n", "    else\n",
           "derper_lib_test", "Relays.AKeyThatMovesToAnotherRelayIsNotGone"),
    Mutant("derper: nobody is told that a client of another loop is not here", "derper/relay.cc",
           "        say(origin.loop, {.kind = Note::Kind::kNotHere, .conn = origin.conn, .key = to});\n", "",
           "derper_lib_test", "Relays.SeveralLoopsDoWhatOneDoes"),
    # DNS
    Mutant("dns: names of others inside our zone are asked elsewhere", "tailscaled/dns/names.cc",
           "if (const std::string* zone = names.zone_of(q.name)) return done(no_such_name(q, *zone));", "",
           "dns_test", "Names.AnswersAsRecorded"),
    Mutant("dns: a name may loop", "base/dns_message.cc", "if (to >= lowest || to < kHeaderBytes) return false;", "if (to >= message.size()) return false;",
           "base_test", "DnsMessage.PointersOnlyLeadBack"),
    Mutant("dns: anybody's answer is taken", "tailscaled/dns_forwarder.cc",
           "if (!dns::answers(reply, owner_.query_, owner_.id_)) continue;  // somebody guesses", "",
           "daemon_test", "ForwarderTest.GuessedAnswersAreNotTaken"),
    Mutant("dns: a failing server's answer wins", "tailscaled/dns_forwarder.cc",
           "return h && h->rcode != dns::kServFail && h->rcode != dns::kRefused;", "return h.has_value();",
           "daemon_test", "ForwarderTest.FailuresWaitForABetterAnswer"),
    Mutant("dns: two servers ask each other for ever", "tailscaled/dns_forwarder.cc", " || static_cast<size_t>(same) >= kMaxSame", "",
           "daemon_test", "ForwarderTest.ACircleIsCut"),
    Mutant("dns: resolv.conf stays ours after a kill", "platform/linux/dns_plan.cc",
           "case Kind::kOurs: return {now.backup ? FileOp::kRestore : FileOp::kRemove};", "case Kind::kOurs: return {};",
           "platform_test", "DirectDnsTest.CleanupBringsBackWhatAKilledRunLeft"),
    Mutant("dns: no backup is kept", "platform/linux/dns_plan.cc",
           "case Kind::kForeign: return {FileOp::kKeepBackup, FileOp::kWrite};", "case Kind::kForeign: return {FileOp::kWrite};",
           "platform_test", "ResolvPlan.ThereAndBackFromEveryStateAndEveryInterruption"),
    Mutant("dns: a fight over resolv.conf never ends", "platform/linux/dns_plan.cc", "if (++rounds_ <= kMaxRounds) return true;", "return true;",
           "platform_test", "FightGuard.AnswersNineTimesThenRestsLongerAndLonger"),
    # WireGuard
    Mutant("wg: a datagram is accepted twice", "wg/session.cc",
           "if (!window_.fresh(counter)) return DropReason::kReplayed;", "",
           "wg_test", "Device.AReplayedResponseOrDatagramIsRefused",
           also=(("if (!window_.fresh(job.counter)) return DropReason::kReplayed;", ""),)),
    Mutant("wg: a datagram is accepted twice in one batch", "wg/session.cc",
           "if (!window_.fresh(job.counter)) return DropReason::kReplayed;", "",
           "wg_test", "Batch.EachDatagramIsJudgedByItself"),
    Mutant("wg: an old initiation is accepted again", "wg/receive.cc",
           "if (opened.stamp <= s.last_stamp) return DropReason::kReplayedStamp;", "",
           "wg_test", "Device.ReplayedAndStaleInitiationsAreRefused"),
    Mutant("wg: mac1 is not checked", "wg/cookie.cc",
           "if (!crypto::equal_constant_time(expected, mac1_of(message))) return Verdict::kBadMac;", "",
           "wg_test", "HandshakeGate.WithoutMac1NothingIsAnsweredAndNothingSpent"),
    Mutant("wg: a cookie is demanded, any cookie will do", "wg/cookie.cc",
           "if (!crypto::equal_constant_time(expected, mac2_of(message))) return Verdict::kDemandCookie;", "",
           "wg_test", "HandshakeGate.DemandsCookiesOnceTheFreeBudgetIsSpentAndForOneSecondAfter"),
    Mutant("wg: everybody who floods us is answered", "wg/receive.cc",
           "if (!gate_.may_reply(from.by_derp() || output_.knows(from), now)) return DropReason::kRateLimited;", "",
           "wg_test", "Device.FloodsFromInventedSourcesGetFewAnswers"),
    Mutant("wg: who is known waits behind a flood of strangers", "wg/receive.cc",
           "from.by_derp() || output_.knows(from)", "false",
           "wg_test", "Device.WhoIsKnownGetsItsCookieInAFloodAtOnce"),
    Mutant("wg: a peer whose clock went back is locked out as long as we call it", "wg/timers.cc",
           "s.last_stamp = {};", "",
           "wg_test", "Device.APeerWhoseClockWentBackGetsInThoughWeKeepCallingIt"),
    Mutant("wg: a session opens for ever", "wg/session.cc",
           "if (age(now) > kRejectAfterTime) return DropReason::kExpired;", "",
           "wg_test", "Device.ASessionOpensNothingAfter180Seconds"),
    Mutant("wg: every message has the same counter", "wg/session.cc",
           "const uint64_t counter = next_counter_++;", "const uint64_t counter = next_counter_;",
           "wg_test", "Session.OpensEveryLengthItSealed"),
    Mutant("wg: old padding bytes leave with a packet", "wg/session.cc",
           "std::memset(slot + kDataHeader + plain_len, 0, padding);", "",
           "wg_test", "SessionProof.PaddingIsZeroWhateverLayThere"),
    # dataplane and netstack
    Mutant("dataplane: a peer may send from any address", "tailscaled/dataplane/dataplane.cc",
           "if (row == nullptr || !row->allowed.contains(p.src)) return drop_in(Drop::kSource);",
           "if (row == nullptr) return drop_in(Drop::kSource);",
           "dataplane_test", "DataPlane.ASourceThatIsNotThePeersIsDropped"),
    Mutant("dataplane: every port is the PeerAPI's", "tailscaled/dataplane/dataplane.cc",
           "port != 0 && p.dst_port == port && p.is_tcp_syn()", "port != 0 && p.is_tcp_syn()",
           "dataplane_test", "DataPlane.ThePeerApiIsOpenToPeersWhateverTheFilterSays"),
    Mutant("dataplane: padding goes into the tunnel", "tailscaled/dataplane/dataplane.cc",
           "const MutByteSpan packet = plain.first(p.total);", "const MutByteSpan packet = plain;",
           "dataplane_test", "DataPlane.TheFirstPingArrivesAndIsAnswered"),
    Mutant("netstack: the filter accepts everything", "netstack/filter.cc",
           "return ok ? Verdict::kAccept : Verdict::kNoRule;", "return Verdict::kAccept;",
           "netstack_test", "Filter.DeniesByDefault", quick=True),
    Mutant("netstack: shields up changes nothing", "netstack/filter.cc",
           "if (shields_up) return;", "",
           "netstack_test", "Filter.ShieldsUpLetsOnlyAnswersThrough", quick=True),
    Mutant("netstack: a later fragment may cover the headers", "netstack/packet.cc",
           "if (offset_blocks < kMinLaterBlocks) out.proto = kProtoUnknown;", "",
           "netstack_test", "FilterModel.AgreesOnRandomPoliciesAndPackets", quick=True),
    Mutant("netstack: what follows an extension header is not looked at", "netstack/packet.cc",
           "    } else if (is_extension6(out.proto)) {\n        out.proto = kProtoUnknown;\n", "",
           "netstack_test", "FilterModel.AgreesOnRandomPoliciesAndPackets", quick=True,
           also=(("    } else {\n        parse_transport(b.subspan(40", "    } else {\n        parse_transport(b.subspan(40"),)),
    Mutant("netstack: IPv4 options are taken for the transport", "netstack/packet.cc",
           "(fragment & 0x2000U) != 0, b.subspan(ip_len, total - ip_len), out);", "(fragment & 0x2000U) != 0, b.subspan(20, total - 20), out);",
           "netstack_test", "FilterModel.AgreesOnRandomPoliciesAndPackets"),
    Mutant("netstack: half an ICMP error is one", "netstack/packet.cc",
           "if (total < ip_len + 8U) return false;\n    // RFC 792", "// RFC 792",
           "netstack_test", "FilterModel.AgreesOnRandomPoliciesAndPackets"),
    Mutant("netstack: TCP is judged by its SYN alone", "netstack/packet.h",
           "(tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn", "(tcp_flags & kTcpSyn) != 0",
           "netstack_test", "FilterModel.AgreesOnRandomPoliciesAndPackets"),
    Mutant("netstack: checksums of segments are left as they were", "netstack/segment.cc",
           "store_be16(l4 + field, sum);\n}", "}",
           "netstack_test", "Segment.SplitsTcpAsTheKernelWould"),
    # magicsock
    Mutant("path: one that loses full packets carries data", "magicsock/path/path_size.cc",
           "verdict_ = middle_ > 0 ? Verdict::kTooSmall : Verdict::kUntold;", "verdict_ = Verdict::kUntold;",
           "path_test", "PathSize.APathThatLosesFullPacketsIsNeverTrusted"),
    Mutant("path: one that fell silent while its size was asked for is trusted", "magicsock/path/path_size.cc",
           "if (small_ < kEnoughSmall) return;", "",
           "path_test", "PathSize.APathThatFallsSilentWhileItIsAskedIsNotJudged"),
    Mutant("portmap: everybody on the LAN is the router that starts anew", "magicsock/portmap/mapper.cc",
           "if (step_ == Step::kOff || from.addr != network_.gateway) return;", "if (step_ == Step::kOff) return;",
           "portmap_test", "Mapper.AnnouncementsOfOthersAndFloodsOfThemCostNothing"),
    Mutant("path: trust never expires", "magicsock/path/peer_paths.cc",
           "if (trust_told_ && !trusted(now)) {\n        trust_told_ = false;",
           "trust_until_ = max(trust_until_, now + kTrustAfterPong);\n    if (trust_told_ && !trusted(now)) {\n        trust_told_ = false;",
           "path_test", "PeerPaths.TrustThatNobodyRenewsExpiresAndTheOwnerIsTold"),
    Mutant("path: the first heartbeat comes after the end of trust", "magicsock/path/peer_paths.cc",
           "if (trusted(now)) heartbeat_at_ = min(heartbeat_at_, max(now, trust_until_ - kHeartbeat));", "",
           "path_test", "PeerPaths.TrustFromBeforeTheFirstSendIsRenewedInTime"),
    Mutant("path: data waits for the verdict on a silent path", "magicsock/path/peer_paths_silence.cc", "s.doubt = true;\n        s.next_probe", "s.next_probe",
           "path_test", "Silence.APathThatDiesUnderLoadIsDoubtedInHalfASecondAndLeftAfterTwo"),
    Mutant("path: one that died a moment ago carries data alone", "magicsock/path/peer_paths.h", "(silence_.doubt || now < probation_until_) && trusted(now)",
           "silence_.doubt && trusted(now)", "path_test", "Silence.APathThatComesAndGoesIsCoveredByTheRelayAfterItsFirstDeath"),
    Mutant("path: whatever comes in ends a doubt", "magicsock/path/peer_paths.cc", "if (!silence_.doubt) silence_.since = {};", "silence_ = {};",
           "path_test", "Silence.OnlyAPongEndsADoubt"),
    Mutant("path: a better address never takes over", "magicsock/path/peer_paths.cc",
           " || better_addr({.ep = c.ep, .latency = c.latency}, best_);", ";",
           "path_test", "PeerPathsProof.AFasterAddressTakesOverFromATrustedOne"),
    Mutant("path: an address that the peer withdrew is kept", "magicsock/path/peer_paths.cc",
           "!trusted(now) || withdrawn_ || c.ep", "!trusted(now) || c.ep",
           "path_test", "PeerPaths.AnAddressThePeerWithdrawsGivesWayToTheNextPong"),
    Mutant("path: pings are not pinged back", "magicsock/path/peer_paths.cc",
           "if (trusted(now)) return answer;\n    if (c->last_ping_back", "return answer;\n    if (c->last_ping_back",
           "path_test", "PeerPaths.APingIsAnsweredByAPingBackWhileThereIsNoTrust"),
    Mutant("path: any pong proves an address", "magicsock/path/peer_paths.cc",
           "if (it == outstanding_.end()) return std::nullopt;",
           "if (it == outstanding_.end()) { set_best({.ep = candidates_.front().ep, .latency = {}}, now, todo); return std::nullopt; }",
           "path_test", "PeerPaths.APongWithAnUnknownOrUsedIdProvesNothing"),
    Mutant("path: a stranger's CallMeMaybe is followed", "magicsock/path/magicsock_disco.cc",
           "    Peer* p = find_by_node(from);\n    if (p == nullptr || !speaks_disco(*p) || disco::sender_of(datagram) != p->config.disco) {",
           "    Peer* p = find_by_node(from);\n"
           "    if (const auto it = by_disco_.find(disco::sender_of(datagram)); it != by_disco_.end()) p = find(it->second.front());\n"
           "    if (p == nullptr || !speaks_disco(*p)) {",
           "path_test", "Magicsock.DiscoByRelayMustComeFromTheNodeThatOwnsTheKey"),
    Mutant("derp: a frame may be of any length", "magicsock/derp/frame.cc",
           "if (len > *limit) return Next::kTooLarge;", "",
           "derp_test", "DerpFrame.LengthsAboveTheLimitEndTheStream"),
    # the simulator notices by itself
    Mutant("sim: a datagram is accepted twice", "wg/session.cc",
           "if (!window_.fresh(counter)) return DropReason::kReplayed;", "",
           "sim_test", "Sim.SeedsHoldWhatIsPromised",
           also=(("if (!window_.fresh(job.counter)) return DropReason::kReplayed;", ""),)),
    Mutant("sim: a peer may send from any address", "tailscaled/dataplane/dataplane.cc",
           "if (row == nullptr || !row->allowed.contains(p.src)) return drop_in(Drop::kSource);",
           "if (row == nullptr) return drop_in(Drop::kSource);",
           "sim_test", "Sim.SeedsHoldWhatIsPromised"),
    Mutant("sim: the filter accepts everything", "netstack/filter.cc",
           "return ok ? Verdict::kAccept : Verdict::kNoRule;", "return Verdict::kAccept;",
           "sim_test", "Sim.SeedsHoldWhatIsPromised"),
    Mutant("sim: the tables do not follow the map", "tailscaled/network_plan.cc",
           "plan.policy = plan.policy || !changes->removed.empty() || !changes->added.empty();", "",
           "sim_test", "Sim.SeedsHoldWhatIsPromised"),
    Mutant("sim: a change of the filter is overlooked", "tailscaled/network_plan.cc",
           "plan.policy = changes == nullptr || changes->self || changes->filter;", "plan.policy = changes == nullptr || changes->self;",
           "sim_test", "Sim.AFilterThatControlChangesIsObeyedFromThatMomentOn"),
    Mutant("sim: pings are not answered", "magicsock/path/magicsock_disco.cc",
           "if (paths_of(p, now).heard_ping(source.udp, m.tx, m.padding, now, todo))\n        if (send_disco(p, pong, source)) ++counters_.pongs_out;",
           "(void)paths_of(p, now).heard_ping(source.udp, m.tx, m.padding, now, todo);",
           "sim_test", "Sim.EveryPairOfNatsEndsAsPredictedInBothRoles"),
    Mutant("sim: the relay is never left", "magicsock/path/peer_paths.cc",
           "if (c.ep != best_.ep || !trusted(now)) return set_best({.ep = c.ep, .latency = c.latency}, now, todo);",
           "if (c.ep != best_.ep || !trusted(now)) return static_cast<void>(todo);",
           "sim_test", "Sim.SeedsHoldWhatIsPromised"),
    Mutant("sim: a silent path is kept", "magicsock/path/peer_paths.cc",
           "withdrawn_ = false;\n    trust_until_ = now + kTrustAfterPong;", "withdrawn_ = false;\n    trust_until_ = now + seconds(3600);",
           "sim_test", "Sim.SeedsHoldWhatIsPromised",
           also=(("trust_until_ = now + kTrustAfterPong;\n    note_pong(now);", "trust_until_ = now + seconds(3600);\n    note_pong(now);"),
                 ("    watch_silence(now, todo);\n", ""))),
    Mutant("sim: data waits for the verdict on a silent path", "magicsock/path/peer_paths_silence.cc", "s.doubt = true;\n        s.next_probe", "s.next_probe",
           "sim_test", "Sim.SeedsHoldWhatIsPromised", also=(("silence_.doubt = true;\n        last_hint_", "last_hint_"),)),
    # control
    Mutant("control: PeersRemoved is ignored", "tailscaled/control/map_peers.cc",
           "if (const auto id = node_id(text)) erase(*id);", "",
           "control_test", "MapSessionTest.PeersRemovedAndChangedTogetherAddAgain"),
    Mutant("control: the Noise nonce is little endian", "tailscaled/control/noise.cc",
           "crypto::nonce_be(nonce, send_nonce_++);", "crypto::nonce_le(nonce, send_nonce_++);",
           "control_test", "NoiseVectors.RecordsAreSealedAndOpened"),
    Mutant("control: any text is a web address", "tailscaled/control/control.cc",
           'return (url.starts_with("https://") || url.starts_with("http://")) && log', "return log",
           "control_test", "MapSessionTest.OnlyWebAddressesAreShown"),
    # local API
    Mutant("localapi: web pages may ask", "tailscaled/localapi/session.cc",
           'return (host.empty() || host == kHost) && !r.has_header("Origin")', "return (host.empty() || host == kHost)",
           "localapi_test", "SessionTest.WebPagesAreTurnedAway"),
    Mutant("localapi: everybody may write", "tailscaled/localapi/peer_auth.cc",
           "if (uid == 0 || uid == daemon_uid) return true;", "return uid == 0 || daemon_uid != uid || true;",
           "localapi_test", "SessionTest.OthersMayReadButNotWrite"),
    # platform
    Mutant("loop: a descriptor stays open", "platform/loop/loop.cc",
           "        rearm_clock();\n        CHECK(uv_poll_init", "        rearm_clock();\n        (void)::fcntl(clock_fd.get(), F_DUPFD_CLOEXEC, 0);\n        CHECK(uv_poll_init",
           "platform_test", "Loop.ReadsTheClockOnceInATurn"),
    Mutant("loop: a handle that outlives its loop is overlooked", "platform/loop/loop.cc",
           "    CHECK(rc == 0);\n}", "}",
           "platform_test", "LoopDeathTest.AHandleThatOutlivesItsLoopEndsTheProgram"),
    Mutant("file: replaced before its content is on disk", "platform/file.cc",
           'if (step(FileStep::kSync, temp, [&] { return ::fsync(f.fd); }) != 0) return give_up("fsync " + temp);', "",
           "daemon_test", "StateFileProof.EachGenerationIsOnDiskBeforeItGetsItsName"),
    Mutant("router: rules stay behind at the end", "platform/linux/router.cc",
           "Status done = execute(netlink_, host.tun_index, plan(host, nothing, tun_name_));", "Status done{};",
           "platform_kernel_test", "RouterKernel.ClientEqualsTheOriginalAndLeavesNoTrace", root=True),
    # the daemon
    Mutant("state: the previous generation is not tried", "tailscaled/state_file.cc",
           "if (auto older = ipn::StateStore::parse(*old)) {", "if (auto older = ipn::StateStore::parse(*old); older && false) {",
           "daemon_test", "StateFileProof.ADamagedFileIsReplacedByItsPredecessor"),
    Mutant("state: the previous generation is not kept", "tailscaled/state_file.cc",
           'if (!last_.empty()) TRY(platform::replace_file(path_ + ".prev", last_.view(), 0600));', "",
           "daemon_test", "StateFileProof.ADamagedFileIsReplacedByItsPredecessor"),
    Mutant("plan: an unasked default route is used", "tailscaled/network_plan.cc",
           "p.is_default() ? is_exit_node : prefs.route_all", "p.is_default() || prefs.route_all",
           "daemon_test", "HostileControl.AnUnaskedDefaultRouteIsNotUsed"),
    Mutant("plan: subnets are used unasked", "tailscaled/network_plan.cc",
           "p.is_default() ? is_exit_node : prefs.route_all", "!p.is_default() || is_exit_node",
           "daemon_test", "HostileControl.SubnetsNeedAcceptRoutesEvenIfTheyAreSingleAddresses"),
    Mutant("port mapping: an answer with any nonce is taken", "magicsock/portmap/mapper.cc", "answer->map->nonce == nonce_ && ", "", "portmap_test",
           "Mapper.APcpAnswerWithAnotherNonceIsNotOurs"),
    Mutant("port mapping: anybody may speak for the router", "magicsock/portmap/mapper.cc",
           "if (from == Endpoint{network_.gateway, kPxpPort}) handle_pxp(datagram, now);", "handle_pxp(datagram, now);", "portmap_test",
           "Mapper.AnswersOfOthersChangeNothing"),
    Mutant("port mapping: the port stays open at exit", "magicsock/portmap/mapper.cc", "    if (mapping_) take_back(*mapping_);\n", "", "portmap_test",
           "Mapper.TheMappingIsTakenBackAtTheEndAndWhenTheNetworkMoves"),
    Mutant("port mapping: it is never renewed", "magicsock/portmap/mapper.cc", "if (mapping_ && now >= mapping_->renew_at) return renew(now);", "",
           "portmap_test", "Mapper.TheMappingIsRenewedAtHalfTimeWithTheSamePort"),
]


def say(text):
    print(text, flush=True)


def copy_tree():
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    wanted = {n for n in names.decode().split("\0") if n and (ROOT / n).is_file()}
    for name in wanted:
        data, target = (ROOT / name).read_bytes(), SRC / name
        if target.is_file() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for path in SRC.rglob("*"):
        if path.is_file() and str(path.relative_to(SRC)) not in wanted:
            path.unlink()


def build(targets):
    env = dict(os.environ, CCACHE_BASEDIR=str(SRC), CCACHE_NOHASHDIR="1", CCACHE_SLOPPINESS="time_macros,include_file_mtime,include_file_ctime")
    if not (OUT / "build.ninja").is_file():
        done = subprocess.run(["cmake", "-S", SRC, "-B", OUT, "-G", "Ninja", f"-DMESH_LWIP={ROOT / 'build/lwip'}", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0"],
                              capture_output=True, text=True, env=env)
        if done.returncode != 0:
            return False, done.stdout + done.stderr
    done = subprocess.run(["ninja", "-C", OUT, *sorted(targets)], capture_output=True, text=True, errors="replace", env=env)
    return done.returncode == 0, done.stdout


def run(binary, tests, seconds=60):
    """(exit code or None after `seconds`, output)"""
    try:
        done = subprocess.run([OUT / "bin" / binary, f"--gtest_filter={':'.join(tests)}"], capture_output=True, text=True,
                              errors="replace", timeout=seconds)
        return done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as e:
        return None, (e.stdout or b"").decode(errors="replace")


def try_mutant(m):
    """None if the test noticed, else why not."""
    text = m.path().read_text()
    broken = text
    for old, new in m.edits():
        if broken.count(old) != 1:
            return f"its text occurs {broken.count(old)} times in {m.file}: {old}"
        broken = broken.replace(old, new)
    try:
        m.path().write_text(broken)
        built, output = build([m.binary])
        if not built:
            return "the mutant does not compile\n" + output[-2000:]
        code, output = run(m.binary, [m.test])
    finally:
        m.path().write_text(text)
    if code is None or code < 0 or "[  FAILED  ] " + m.test in output:
        return None
    return f"{m.test} did not notice"


def main():
    words = [a for a in sys.argv[1:] if not a.startswith("--")]
    if any(a not in ("--list", "--texts", "--quick") for a in sys.argv[1:] if a.startswith("-")):
        sys.exit(__doc__)
    mutants = [m for m in MUTANTS if (not words or any(w in m.name for w in words)) and (m.quick or "--quick" not in sys.argv)]
    if "--texts" in sys.argv:  # what every run of the tests can afford: the table follows the code
        stale = [m.name for m in MUTANTS if any((ROOT / m.file).read_text().count(old) != 1 for old, _ in m.edits())]
        for name in stale:
            say(f"FAILED  its text is not in the code exactly once: {name}")
        say(f"{len(MUTANTS) - len(stale)} passed, {len(stale)} failed")
        return len(stale) > 0
    if "--list" in sys.argv:
        for m in mutants:
            say(f"{m.name}\n    {m.file} -> {m.test}")
        return 0
    skipped = [m for m in mutants if m.root and os.geteuid() != 0]
    mutants = [m for m in mutants if m not in skipped]
    for m in skipped:
        say(f"SKIPPED LOUDLY, needs root: {m.name}")
    start = time.monotonic()
    copy_tree()
    binaries = {}
    for m in mutants:
        binaries.setdefault(m.binary, set()).add(m.test)
    passed = failed = 0
    built, output = build(binaries)
    if not built:
        say(output[-4000:])
        say("0 passed, 1 failed")
        return 1
    for binary, tests in binaries.items():
        code, output = run(binary, tests)
        missing = [t for t in tests if "[       OK ] " + t not in output]
        if code != 0 or missing:
            failed += 1
            say(f"FAILED  unbroken {binary}: {', '.join(missing)}\n{output[-2000:]}")
    say(f"unbroken copy built and tested in {time.monotonic() - start:.0f} s")
    for m in sorted(mutants, key=lambda one: one.binary):
        begin = time.monotonic()
        why = try_mutant(m)
        passed, failed = passed + (why is None), failed + (why is not None)
        say(f"{'noticed' if why is None else 'FAILED '} {time.monotonic() - begin:5.1f} s  {m.name}" +
            (f"  [{m.test}]" if why is None else f"\n        {why}"))
    say(f"total {time.monotonic() - start:.0f} s")
    say(f"{passed} passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
