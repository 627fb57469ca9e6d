// SPDX-License-Identifier: BSD-3-Clause
#include "platform/loop/worker.h"

#include <utility>

namespace mesh::platform {

Worker::~Worker() {
    *alive_ = false;
    if (!there_) return;
    ending_ = true;
    there_->stop();
    thread_.join();
}

void Worker::run(std::function<void()> job, std::function<void()> done) {
    if (!there_) {
        there_ = std::make_unique<Loop>();
        thread_ = std::thread([loop = there_.get()] { loop->run(); });
    }
    there_->post([this, job = std::move(job), done = std::move(done), alive = alive_]() mutable {
        if (ending_) return;
        job();
        home_.post([done = std::move(done), alive = std::move(alive)] {
            if (*alive) done();
        });
    });
}

}  // namespace mesh::platform
