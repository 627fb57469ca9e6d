// SPDX-License-Identifier: BSD-3-Clause
#include "platform/linux/child_process.h"

#include <signal.h>
#include <uv.h>

#include <utility>

#include "platform/linux/run_command.h"

namespace mesh::platform {

struct ChildProcess::State {
    uv_process_t handle{};
    OnExit on_exit;
    bool running = false, owned = true;

    void close() {
        uv_close(reinterpret_cast<uv_handle_t*>(&handle), [](uv_handle_t* h) { delete static_cast<State*>(h->data); });
    }
};

Result<std::unique_ptr<ChildProcess>> ChildProcess::start(Loop& loop, const std::vector<std::string>& argv, OnExit on_exit) {
    const std::string program = find_program(argv.at(0));
    if (program.empty()) return fail(Code::kNotFound, argv[0] + " is not installed");
    std::vector<std::string> words = argv;
    std::vector<char*> pointers;
    for (std::string& w : words) pointers.push_back(w.data());
    pointers.push_back(nullptr);
    auto* state = new State;
    state->on_exit = std::move(on_exit);
    state->handle.data = state;
    uv_process_options_t options{};
    options.file = program.c_str();
    options.args = pointers.data();
    options.exit_cb = [](uv_process_t* h, int64_t code, int signal) {
        auto* s = static_cast<State*>(h->data);
        s->running = false;
        if (!s->owned) return s->close();
        const OnExit tell = std::move(s->on_exit);  // it may destroy the owner
        tell(code == 0 && signal == 0);
    };
    std::unique_ptr<ChildProcess> child(new ChildProcess(state));
    if (const int err = uv_spawn(loop.uv(), &state->handle, &options); err != 0) return fail_errno("start " + program, -err);
    state->running = true;
    return child;
}

ChildProcess::~ChildProcess() {
    state_->owned = false;
    if (state_->running)
        uv_process_kill(&state_->handle, SIGKILL);  // collected when it has ended
    else
        state_->close();
}

}  // namespace mesh::platform
