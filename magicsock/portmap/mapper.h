// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// Keeps one UDP port of the router forwarded to us, by NAT-PMP, PCP or UPnP. Pure:
///
///     set(network, port) → drain next_send() into one socket, next_http() into an HTTP client
///     every datagram of the socket → handle_datagram(); every answer → http_answer(); re-arm next_timeout() → handle_timeout()
///     release() at the end, and drain once more
/// mapping() is then the endpoint to advertise; it may change after any input.
///
/// Rules. The three are probed at once (prober.h). NAT-PMP and PCP are used as soon as they answer, NAT-PMP first; UPnP
/// when they stayed silent for 250 ms; who refuses is followed by the next one. A mapping is asked for 2 h, renewed after half of
/// what was granted, with the same outside port, and used until it ends. A router that has lost its memory (its epoch went
/// back) or has another address is asked anew at once, as it is one that appears: it says so to everybody on the LAN (RFC 6886
/// 3.2.1, RFC 6887 14.1), and besides that is looked at every 5 min. Another network or port: the old mapping is taken back first.
/// Nothing is ever sent to anybody but the gateway and the multicast address of SSDP: a UPnP device elsewhere is asked at
/// the gateway's address (it may be the same machine), and if that fails it is said.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "magicsock/portmap/pcp.h"
#include "magicsock/portmap/prober.h"
#include "magicsock/portmap/upnp.h"

namespace mesh::portmap {

enum class Protocol : uint8_t { kNatPmp, kPcp, kUpnp };
[[nodiscard]] std::string_view name(Protocol p);

/// A request to the gateway, to be answered by http_answer(). No redirects; bodies of at most upnp::kMaxXml.
struct HttpAsk {
    uint64_t id = 0;
    std::string url;
    std::optional<upnp::Call> call;  ///< none: GET; else POST with its body and SOAPAction
};

struct Note {
    enum class Kind : uint8_t {
        kWrongGateway,    ///< a UPnP gateway answers that is not our way out
        kPrivateAddress,  ///< the port is open at an address that is not on the Internet
        kRefused,
    } kind = Kind::kRefused;
    std::string text;  ///< a sentence or two
    bool operator==(const Note&) const = default;
};

class Mapper {
   public:
    static constexpr uint32_t kLifetimeS = 7200;

    explicit Mapper(Random& random) : random_(random) {}

    /// Where we are and which port is ours; a network that is not usable or port 0: no mapping. Equal to before: nothing happens.
    void set(const Network& network, uint16_t local_port, Time now);
    /// Takes the mapping back and rests until the next set().
    void release(Time now) { set({}, 0, now); }
    /// There is a reason to look again (the address outside changed, somebody asked): renews or probes, at most every 10 s,
    /// and then later.
    void look_again(Time now);

    [[nodiscard]] std::optional<Datagram> next_send();
    void handle_datagram(ByteSpan datagram, const Endpoint& from, Time now);
    /// A datagram that came to the group 224.0.0.1, port kAnnouncePort, where gateways say that they have started.
    void handle_announcement(ByteSpan datagram, const Endpoint& from, Time now);
    [[nodiscard]] std::optional<HttpAsk> next_http();
    /// `body` is empty if there was no answer; any status.
    void http_answer(uint64_t id, std::string_view body, Time now);

    /// As the router said; its address may be private (see notes()).
    [[nodiscard]] std::optional<Endpoint> mapping() const;
    [[nodiscard]] std::optional<Protocol> protocol() const;
    /// nullptr until the first probe in this network is over.
    [[nodiscard]] const Found* services() const { return probed_ ? &found_ : nullptr; }
    /// What stands in the way, for people.
    [[nodiscard]] std::vector<Note> notes() const;
    /// Requests that take mappings back are under way.
    [[nodiscard]] bool releasing() const { return !releases_.empty(); }

    [[nodiscard]] Time next_timeout() const;
    void handle_timeout(Time now);

   private:
    enum class Step : uint8_t { kOff, kProbing, kPxp, kUpnp, kResting };
    struct Mapping {
        Protocol by = Protocol::kNatPmp;
        Endpoint external;
        Time renew_at, good_until;
    };
    /// The seconds a router counts since it began to remember.
    struct Epoch {
        uint32_t value = 0;
        Time at;
        /// True if it went back, beyond what a slow clock explains (RFC 6886 3.6).
        bool update(uint32_t fresh, Time now);
    };
    struct Candidate {
        upnp::Service service;
        uint16_t http_port = 0;
        bool connected = false;
        Addr external;
    };
    enum class UpnpStep : uint8_t { kDescribe, kStatus, kExternal, kAdd };

    void probe(Time now);
    void try_next(Time now);
    void give_up(Time now);
    void rest(Time now);
    void renew(Time now);
    void refused(Protocol by, std::string why, Time now);
    void succeeded(Protocol by, const Endpoint& external, uint32_t lifetime_s, Time now);
    void take_back(const Mapping& m);
    void send_pxp(Time now);
    void handle_pxp(ByteSpan datagram, Time now);
    void note_epoch(Epoch& epoch, uint32_t fresh, Time now);
    // UPnP, in the order of the steps
    void upnp_begin(Time now);
    void upnp_describe(Time now);
    void upnp_examine(Time now);
    void upnp_choose(Time now);
    void upnp_add(Time now);
    void upnp_answer(std::string_view body, Time now);
    void upnp_added(const Result<upnp::Reply>& reply, Time now);
    uint64_t ask(uint16_t http_port, const std::string& path, std::optional<upnp::Call> call);

    Random& random_;
    Prober prober_;
    Network network_;
    uint16_t port_ = 0;
    Step step_ = Step::kOff;
    Found found_;
    bool probed_ = false;
    std::optional<Mapping> mapping_;
    unsigned tried_ = 0;  ///< bits of Protocol, in this attempt
    unsigned failures_ = 0;
    Time again_at_ = Time::never();  ///< next probe without a mapping
    Time check_at_ = Time::never();  ///< next look at the router's epoch
    Time looked_at_;
    std::map<Protocol, std::string> refusals_;
    std::vector<Datagram> out_;
    // the attempt under way
    Protocol by_ = Protocol::kNatPmp;
    unsigned tries_ = 0;
    Time step_at_ = Time::never();
    pcp::Nonce nonce_{};
    Addr pmp_external_;
    std::optional<std::pair<uint16_t, uint32_t>> pmp_mapped_;  ///< outside port, lifetime
    Epoch pmp_epoch_, pcp_epoch_;
    // UPnP
    UpnpStep upnp_step_ = UpnpStep::kDescribe;
    size_t next_igd_ = 0, at_ = 0;
    std::vector<Candidate> candidates_;
    Candidate chosen_;
    uint16_t wanted_port_ = 0;
    uint32_t lease_s_ = kLifetimeS;
    uint64_t next_id_ = 1, waiting_for_ = 0;
    std::vector<HttpAsk> http_;
    std::vector<uint64_t> releases_;
};

}  // namespace mesh::portmap
