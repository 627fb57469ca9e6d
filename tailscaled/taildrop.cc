// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/taildrop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/crypto/crypto.h"
#include "base/json.h"
#include "base/log.h"

namespace mesh::daemon {

using platform::Inbox;

namespace {

constexpr size_t kHashedAtOnce = 16 * Inbox::kHashBlock;
constexpr size_t kReadAtOnce = size_t{256} << 10;

/// The blocks of `bytes`, one line each.
std::string hash_lines(std::string_view bytes) {
    std::string out;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), Inbox::kHashBlock))) {
        const std::string_view block = bytes.substr(0, Inbox::kHashBlock);
        out += fmt::format("{{\"checksum\":\"{}\",\"algo\":\"sha256\",\"size\":{}}}\n", hex_encode(crypto::sha256(as_bytes(block))), block.size());
    }
    return out;
}

std::string size_text(uint64_t n) { return n < (1U << 20) ? fmt::format("{} KiB", (n + 1023) >> 10) : fmt::format("{} MiB", n >> 20); }

}  // namespace

unsigned http_status(const Error& error) {
    switch (error.code) {
        case Code::kInvalid: return 400;
        case Code::kDenied: return 403;
        case Code::kLimit: return error.sys_errno == 0 ? 507 : 500;
        default: return 500;
    }
}

std::string taildrop_folder(const std::string& state_dir, const std::string& login_name, int64_t user) {
    if (state_dir.empty() || login_name.empty() || user == 0) return "";
    std::string name;
    for (const char c : login_name) name += c == '@' ? '-' : c;
    name += fmt::format("-uid-{}", user);
    // The server chose that name.
    if (!platform::is_valid_file_name(name)) name = fmt::format("uid-{}", user);
    return state_dir + "/files/" + name;
}

// ---- one file on its way in ------------------------------------------------------------------------------------------

struct Taildrop::Upload::Disk {
    std::shared_ptr<Inbox> inbox;
    std::optional<Inbox::Incoming> file;
    std::optional<Error> error;
    std::string name;  // it got in the end
};

Taildrop::Upload::Upload(Taildrop& owner, std::string peer, std::string name, uint64_t offset, std::optional<uint64_t> length,
                         std::function<void()> on_room, std::function<void(Answer)> on_end)
    : owner_(&owner),
      peer_(std::move(peer)),
      name_(std::move(name)),
      offset_(offset),
      length_(length),
      on_room_(std::move(on_room)),
      on_end_(std::move(on_end)),
      disk_(std::make_shared<Disk>()),
      self_(std::make_shared<Upload*>(this)) {
    disk_->inbox = owner.inbox_;
    owner.incoming_[{peer_, name_}] = this;
    pump();
}

Taildrop::Upload::~Upload() {
    *self_ = nullptr;
    if (owner_ == nullptr) return;
    owner_->incoming_.erase({peer_, name_});
    if (!owner_->sweep_timer_.armed()) owner_->sweep_timer_.set_after(Inbox::kPartialLife);
}

bool Taildrop::Upload::write(std::string bytes) {
    if (ended_) return true;  // whatever comes now is thrown away
    if (pending_.empty())
        pending_ = std::move(bytes);
    else
        pending_ += bytes;
    pump();
    full_ = pending_.size() > kBehind;
    return !full_;
}

void Taildrop::Upload::finish() {
    finishing_ = true;
    pump();
}

void Taildrop::Upload::pump() {
    if (busy_ || ended_ || owner_ == nullptr) return;
    if (disk_->error) {
        log::info("taildrop: {} of {} was not taken: {}", log::printable(name_), log::printable(peer_), disk_->error->message());
        return end({http_status(*disk_->error), disk_->error->message() + "\n"});
    }
    if (!disk_->name.empty()) {
        log::info("taildrop: got {} ({}) from node {}", log::printable(disk_->name), size_text(disk_->file->size()), log::printable(peer_));
        Taildrop* owner = owner_;
        end({200, "{}\n"});
        owner->has_files_ = true;
        owner->answer_waiters();
        owner->hooks_.arrived();
        return;
    }
    if (disk_->file && pending_.empty() && !finishing_) return;
    busy_ = true;
    owner_->disk_.run(
        [disk = disk_, name = name_, peer = peer_, offset = offset_, length = length_, bytes = std::exchange(pending_, {}), last = finishing_] {
            const auto failed = [&](Error e) { disk->error = std::move(e); };
            if (!disk->file) {
                auto file = disk->inbox->receive(name, peer, offset, length);
                if (!file) return failed(std::move(file.error()));
                disk->file = std::move(*file);
            }
            if (const Status s = disk->file->write(as_bytes(bytes)); !s) return failed(s.error());
            if (!last) return;
            auto done = disk->file->finish();
            if (!done) return failed(std::move(done.error()));
            disk->name = std::move(*done);
        },
        [weak = std::weak_ptr<Upload*>(self_)] {
            const auto self = weak.lock();
            if (!self || *self == nullptr) return;
            Upload& u = **self;
            u.busy_ = false;
            const bool room = u.full_ && u.pending_.size() <= kBehind;
            u.full_ = u.full_ && !room;
            u.pump();
            if (*self == nullptr || !room || u.ended_) return;
            const auto on_room = u.on_room_;  // it may be the end of us
            on_room();
        });
}

void Taildrop::Upload::end(Answer answer) {
    ended_ = true;
    pending_.clear();
    const auto on_end = std::move(on_end_);  // it may be the end of us
    on_end(std::move(answer));
}

// ---- all of them -----------------------------------------------------------------------------------------------------

Taildrop::Taildrop(platform::Loop& loop, Hooks hooks, platform::InboxLimits limits)
    : loop_(loop),
      hooks_(std::move(hooks)),
      limits_(limits),
      wait_timer_(loop, [this] { answer_waiters(); }),
      sweep_timer_(loop, [this] { sweep(); }),
      disk_(loop) {}

Taildrop::~Taildrop() {
    for (const auto& [key, upload] : incoming_) upload->owner_ = nullptr;
}

void Taildrop::set_folder(const std::string& folder) {
    if (folder == folder_) return;
    folder_ = folder;
    inbox_ = folder.empty() ? nullptr : std::make_shared<Inbox>(folder, limits_);
    has_files_ = false;
    if (!inbox_) return;
    sweep();
    list({}, [](const Result<Files>&) {});
}

void Taildrop::sweep() {
    if (!inbox_) return;
    auto left = std::make_shared<size_t>(0);
    disk_.run([left, inbox = inbox_, now = loop_.wall()] { *left = inbox->sweep(now); },
              [this, left] {
                  if (*left > 0 && !sweep_timer_.armed()) sweep_timer_.set_after(Inbox::kPartialLife);
              });
}

Result<std::string> Taildrop::sender_at(const Addr& peer) const {
    TRY_ASSIGN(std::string id, hooks_.sender(peer));
    if (!inbox_) return fail(Code::kDenied, "Taildrop disabled; no storage directory");
    return id;
}

Result<std::unique_ptr<Taildrop::Upload>> Taildrop::receive(const Addr& peer, const std::string& name, uint64_t offset,
                                                            std::optional<uint64_t> length, std::function<void()> on_room,
                                                            std::function<void(Answer)> on_end) {
    TRY_ASSIGN(std::string id, sender_at(peer));
    if (!platform::is_valid_file_name(name)) return fail(Code::kInvalid, "invalid filename");
    if (incoming_.contains({id, name})) return fail(Code::kUnavailable, "a file of that name is just being received from you");
    const auto same = std::count_if(incoming_.begin(), incoming_.end(), [&](const auto& e) { return e.first.first == id; });
    if (incoming_.size() >= kMaxIncoming || static_cast<size_t>(same) >= kMaxPerPeer) return fail(Code::kLimit, "too many files at once");
    return std::make_unique<Upload>(*this, std::move(id), name, offset, length, std::move(on_room), std::move(on_end));
}

void Taildrop::left_by(const Addr& peer, const std::string& name, uint64_t offset, std::function<void(Result<std::string>)> done) {
    const auto id = sender_at(peer);
    if (!id) return done(tl::unexpected(id.error()));
    if (!name.empty() && !platform::is_valid_file_name(name)) return done(fail(Code::kInvalid, "invalid filename"));
    auto out = std::make_shared<Result<std::string>>();
    disk_.run(
        [out, inbox = inbox_, id = *id, name, offset] {
            if (name.empty()) {
                const auto names = inbox->partials(id);
                *out = names ? Result<std::string>(names->empty() ? "null\n" : json::dump(Json(*names)) + "\n") : tl::unexpected(names.error());
                return;
            }
            const auto file = inbox->open_partial(name, id);
            if (!file) {
                if (file.error().code != Code::kNotFound) *out = tl::unexpected(file.error());
                return;
            }
            const auto bytes = platform::read_at(file->fd.get(), offset, kHashedAtOnce);
            *out = bytes ? Result<std::string>(hash_lines(*bytes)) : tl::unexpected(bytes.error());
        },
        [out, done = std::move(done)] { done(std::move(*out)); });
}

void Taildrop::list(Duration wait, std::function<void(Result<Files>)> done) {
    if (!inbox_) return done(fail(Code::kUnavailable, "Taildrop disabled; no storage directory"));
    auto out = std::make_shared<Result<Files>>();
    disk_.run([out, inbox = inbox_] { *out = inbox->list(); },
              [this, out, wait, done = std::move(done)] {
                  has_files_ = *out && !(*out)->empty();
                  if (!*out || has_files_ || wait.ns <= 0) return done(std::move(*out));
                  if (waiters_.size() >= kMaxWaiters) return done(fail(Code::kLimit, "too many programs wait for files"));
                  const Time until = loop_.now() + wait;
                  waiters_.push_back({until, done});
                  if (until < wait_timer_.deadline()) wait_timer_.set(until);
              });
}

/// A file has come, or somebody's time is over.
void Taildrop::answer_waiters() {
    const Time now = loop_.now();
    Time next = Time::never();
    for (auto it = waiters_.begin(); it != waiters_.end();) {
        if (!has_files_ && it->until > now) {
            next = std::min(next, it->until);
            ++it;
            continue;
        }
        const auto done = std::move(it->done);
        it = waiters_.erase(it);
        list({}, done);
    }
    wait_timer_.set(next);
}

void Taildrop::remove(const std::string& name, std::function<void(Status)> done) {
    if (!inbox_) return done(fail(Code::kUnavailable, "Taildrop disabled; no storage directory"));
    auto out = std::make_shared<Status>();
    disk_.run([out, inbox = inbox_, name] { *out = inbox->remove(name); }, [out, done = std::move(done)] { done(std::move(*out)); });
}

void Taildrop::open(const std::string& name, std::function<void(Result<OpenFile>)> done) {
    if (!inbox_) return done(fail(Code::kUnavailable, "Taildrop disabled; no storage directory"));
    auto out = std::make_shared<Result<OpenFile>>();
    disk_.run(
        [out, inbox = inbox_, name] {
            auto file = inbox->open(name);
            *out = file ? Result<OpenFile>(std::make_shared<const Inbox::Open>(std::move(*file))) : tl::unexpected(std::move(file.error()));
        },
        [out, done = std::move(done)] { done(std::move(*out)); });
}

void Taildrop::read(const OpenFile& file, uint64_t offset, std::function<void(Result<std::string>)> done) {
    auto out = std::make_shared<Result<std::string>>();
    disk_.run([out, file, offset] { *out = platform::read_at(file->fd.get(), offset, kReadAtOnce); },
              [out, done = std::move(done)] { done(std::move(*out)); });
}

}  // namespace mesh::daemon
