// SPDX-License-Identifier: BSD-3-Clause
#include "tailscaled/file_reads.h"

#include <fmt/format.h>

#include <utility>

#include "base/http1.h"

namespace mesh::daemon {

/// A piece is read when the one before it has left.
class FileReads::Reading final : public platform::ByteStream::Listener, public std::enable_shared_from_this<Reading> {
   public:
    Reading(FileReads& owner, std::string name, platform::ByteStream client) : owner_(owner), name_(std::move(name)), client_(std::move(client)) {}

    void begin() {
        client_.attach(owner_.loop_, *this);
        owner_.files_.open(name_, [weak = weak_from_this()](Result<Taildrop::OpenFile> file) {
            if (const auto self = weak.lock(); self && self->client_.is_open()) self->opened(std::move(file));
        });
    }
    void close() { client_.close(); }

    void on_bytes(MutByteSpan /*bytes*/) override {}
    void on_closed(const Status& /*why*/) override { owner_.readings_.drop(this); }
    void on_drained() override { next(); }

   private:
    void opened(Result<Taildrop::OpenFile> file) {
        http1::Response r;
        if (!file) {
            r = http1::plain_text(500, file.error().message());
            ended_ = true;
        } else {
            file_ = std::move(*file);
            r.headers = {{"Content-Type", "application/octet-stream"}, {"Content-Length", fmt::format("{}", file_->size)}};
        }
        r.keep_alive = false;
        client_.write(http1::serialize(r));
        if (client_.queued_bytes() == 0) next();
    }
    void next() {
        if (!ended_ && at_ < file_->size) {
            if (std::exchange(reading_, true)) return;
            return owner_.files_.read(file_, at_, [weak = weak_from_this()](const Result<std::string>& piece) {
                if (const auto self = weak.lock(); self && self->client_.is_open()) self->have(piece);
            });
        }
        client_.finish_writing();
        owner_.readings_.drop(this);
    }
    void have(const Result<std::string>& piece) {
        reading_ = false;
        // The length was told: a connection that ends early says that something is wrong.
        if (!piece || piece->empty()) return owner_.readings_.drop(this);
        const std::string_view rest = std::string_view(*piece).substr(0, file_->size - at_);
        at_ += rest.size();
        if (!client_.write(rest)) return owner_.readings_.drop(this);
        if (client_.queued_bytes() == 0) next();
    }

    FileReads& owner_;
    const std::string name_;
    platform::ByteStream client_;
    Taildrop::OpenFile file_;
    uint64_t at_ = 0;
    bool ended_ = false, reading_ = false;
};

FileReads::~FileReads() {
    for (const auto& r : readings_) r->close();
}

void FileReads::take(const std::string& name, platform::ByteStream client) {
    if (readings_.size() >= kMaxAtOnce) return;
    readings_.add(std::make_shared<Reading>(*this, name, std::move(client)));
}

}  // namespace mesh::daemon
