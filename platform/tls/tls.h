// SPDX-License-Identifier: BSD-3-Clause
#pragma once
/// TLS by OpenSSL over memory: ciphertext in, plaintext out and back. No socket here; ByteStream moves the bytes.
/// At least TLS 1.2. Errors say the cause in plain words.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

struct ssl_ctx_st;

namespace mesh::platform {

enum class TlsVerify : uint8_t {
    kSystem,    ///< chain to the system's roots (SSL_CERT_FILE, SSL_CERT_DIR honoured) and name
    kPin,       ///< SHA-256 of the one leaf, name and dates; no roots (DERP CertName "sha256-raw:…")
    kWarn,      ///< as kSystem, but a problem is only recorded: TlsSession::certificate_problem()
    kInsecure,  ///< nothing is checked
};

struct TlsClientOptions {
    /// DNS name or IP literal that was dialled. Sent as SNI if it is a DNS name; "" sends none and skips the name check
    /// of kPin.
    std::string server_name;
    TlsVerify verify = TlsVerify::kSystem;
    /// kSystem, kWarn: the certificate must be for this name instead of server_name.
    std::string verify_name;
    std::array<uint8_t, 32> pin_sha256{};
    std::vector<std::string> alpn;  ///< e.g. {"http/1.1"}; empty sends none
    std::string extra_roots_pem;    ///< accepted beside the system's roots
};

/// Options for a DERP node of a map: `cert_name` "" = host name; "sha256-raw:<64 hex>" = pin; else another DNS name.
/// ALPN http/1.1 is not set: derpers do not need it.
[[nodiscard]] Result<TlsClientOptions> derp_tls_options(std::string_view host_name, std::string_view cert_name,
                                                        bool insecure_for_tests);

/// Certificate and key of a server. Immutable, shared between connections and threads.
class TlsServerContext {
   public:
    /// PEM texts; `cert_chain_pem` leaf first. `extra_chain_der` is appended (DERP meta certificate). Offers http/1.1.
    [[nodiscard]] static Result<std::shared_ptr<const TlsServerContext>> create(
        std::string_view cert_chain_pem, std::string_view key_pem, const std::vector<Bytes>& extra_chain_der = {});
    [[nodiscard]] static Result<std::shared_ptr<const TlsServerContext>> load(
        const std::string& cert_path, const std::string& key_path, const std::vector<Bytes>& extra_chain_der = {});
    ~TlsServerContext();
    TlsServerContext(const TlsServerContext&) = delete;
    TlsServerContext& operator=(const TlsServerContext&) = delete;
    [[nodiscard]] ssl_ctx_st* get() const { return ctx_; }

   private:
    explicit TlsServerContext(ssl_ctx_st* ctx) : ctx_(ctx) {}
    ssl_ctx_st* ctx_;
};

/// One connection. Used by one thread at a time.
class TlsSession {
   public:
    [[nodiscard]] static Result<std::unique_ptr<TlsSession>> client(TlsClientOptions options);
    [[nodiscard]] static Result<std::unique_ptr<TlsSession>> server(std::shared_ptr<const TlsServerContext> context);
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    /// Takes ciphertext from the peer. Any amount; handle it with handshake() or read().
    void feed(ByteSpan ciphertext);
    /// As feed(), but handshake() and read() take the bytes from where they lie until settle(), which copies what is left.
    void lend(ByteSpan ciphertext);
    void settle();
    /// The transport ended: read() tells a clean end (close_notify seen) from a cut.
    void feed_eof();
    /// Goes as far as the bytes allow. True when established. Also right before any feed(): the client speaks first.
    [[nodiscard]] Result<bool> handshake();
    [[nodiscard]] bool established() const;
    /// Plaintext into `out`; 0 = nothing now, or ended().
    [[nodiscard]] Result<size_t> read(MutByteSpan out);
    [[nodiscard]] bool ended() const;
    /// Takes all of `plain` (call after established()). Bound it yourself: ciphertext gathers until take_output().
    [[nodiscard]] Status write(ByteSpan plain);
    /// Queues close_notify.
    void close_notify();
    /// Ciphertext to send: appends to `out` (an empty one is exchanged, not copied), returns how many bytes.
    size_t take_output(Bytes& out);
    [[nodiscard]] size_t output_size() const;

    [[nodiscard]] std::string version() const;  ///< "TLSv1.3"
    [[nodiscard]] std::string alpn() const;     ///< what was agreed; "" = none
    /// As the peer sent them, leaf first, DER.
    [[nodiscard]] std::vector<Bytes> peer_chain() const;
    /// kWarn: what a strict check would have said; "" = fine.
    [[nodiscard]] const std::string& certificate_problem() const;

   private:
    struct State;
    explicit TlsSession(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace mesh::platform
