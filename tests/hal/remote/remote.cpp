// SPDX-License-Identifier: Apache-2.0
// remote.cpp: a test plugin whose device is another process, with memory the host cannot touch: the
// least a card is.
//
// Its module format "remote" has the kernels `fail` (an operation that fails) and `hang` (one that
// never ends), for tests.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "hidden_order.hpp"
#include "protocol.hpp"
#include "xhal/plugin.hpp"

extern char** environ;

namespace {

using namespace xhal::plugin;
using remote::Command;
using remote::Verb;

// The card's process, its socket, and the thread that hears it.
struct Card {
  Card(xhal_device* owner, uint32_t number) : device(owner), ordinal(number) {
    int ends[2], go[2];
    // Not a pipe: writing to one whose card was killed would raise SIGPIPE.
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go) != 0) {
      throw Error(XHAL_ERR_IO, "no socket for the card");
    }
    const int memory = memfd_create("remote-card", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, remote::kMemoryBytes) != 0) throw std::bad_alloc();
    // The same range is reserved here, without access: a host dereference faults instead of
    // reading something else.
    base = reinterpret_cast<uint64_t>(mmap(nullptr, remote::kMemoryBytes, PROT_NONE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    // Without CLOEXEC, for the card.
    const int theirs = fcntl(ends[1], F_DUPFD, 3), shared = fcntl(memory, F_DUPFD, 3),
              resumed = fcntl(go[0], F_DUPFD, 3);
    const std::string socket_text = std::to_string(theirs), memory_text = std::to_string(shared),
                      resume_text = std::to_string(resumed);
    const char* argv[] = {REMOTE_CARD, socket_text.c_str(), memory_text.c_str(),
                          resume_text.c_str(), nullptr};
    const int failed =
        posix_spawn(&pid, REMOTE_CARD, nullptr, nullptr, const_cast<char**>(argv), environ);
    for (int fd : {ends[1], go[0], memory, theirs, shared, resumed}) close(fd);
    if (failed != 0)
      throw Error(XHAL_ERR_DEVICE, "the card process " REMOTE_CARD " could not be started");
    socket = ends[0];
    resume = go[1];
    listener = std::thread([this] { listen(); });
    writer = std::thread([this] { write(); });
  }

  ~Card() {
    stopping = true;
    kill(pid, SIGKILL);
    shutdown(socket, SHUT_RDWR);
    {
      const std::lock_guard lock(mutex);
      more.notify_one();
    }
    writer.join();
    listener.join();
    int status = 0;
    waitpid(pid, &status, 0);
    close(socket);
    close(resume);
    drop_calls(XHAL_ERR_SHUTDOWN);
    munmap(reinterpret_cast<void*>(base), remote::kMemoryBytes);
  }

  void listen() {
    remote::Acknowledgement a{};
    while (recv(socket, &a, sizeof a, 0) == sizeof a) {
      auto* timeline = reinterpret_cast<xhal_timeline*>(a.timeline);
      if (a.verb == Verb::call) {
        run_call(a.timeline, XHAL_OK);
        order.has_run();
        send(resume, "", 1, MSG_NOSIGNAL);
        continue;
      }
      if (a.verb == Verb::signal) {
        host().timeline_advance(timeline, a.value);
        continue;
      }
      const std::string text = "remote:" + std::to_string(ordinal) +
                               ": kernel `fail` failed on the card, as it was asked to";
      xhal_error e{};
      e.struct_size = sizeof e;
      e.status = XHAL_ERR_DEVICE;
      e.scope = XHAL_SCOPE_OPERATION;
      e.vendor_code = 4711;
      e.operation = str("fail");
      e.text = str(text);
      host().timeline_fail(timeline, &e);
    }
    if (stopping) return;
    std::string running;
    {
      const std::lock_guard lock(mutex);
      running = last_operation;
    }
    lose(running);
    drop_calls(XHAL_ERR_DEVICE_LOST);
  }

  // Only the listener says so, behind what the card had still acknowledged: who is told of the loss
  // knows that no call of before is under way.
  void lose(const std::string& running) {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
    const std::string text =
        "remote:" + std::to_string(ordinal) + " lost while running `" + running +
        "`: card process " + std::to_string(pid) + " was killed (signal " +
        std::to_string(info.si_status) +
        ").\n  Its memory is gone; other devices are not affected. Open it again to go on.";
    xhal_error e{};
    e.struct_size = sizeof e;
    e.operation = str(running);
    e.text = str(text);
    host().device_lost(device, &e);
  }

  // Host calls that are on their way: each is called exactly once.
  struct Call {
    xhal_host_fn callback;
    void* user;
  };
  void run_call(uint64_t number, xhal_status status) {
    Call call{};
    {
      const std::lock_guard lock(calls_mutex);
      const auto it = calls.find(number);
      if (it == calls.end()) return;
      call = it->second;
      calls.erase(it);
    }
    call.callback(call.user, status);
  }
  void drop_calls(xhal_status status) {
    for (;;) {
      uint64_t number;
      {
        const std::lock_guard lock(calls_mutex);
        if (calls.empty()) return;
        number = calls.begin()->first;
      }
      run_call(number, status);
    }
  }

  // A submission never waits for other work, so what the full socket does not take stays in the
  // backlog: the card may be waiting for the very callback that submits.
  xhal_status send_command(Command command, const char* operation, int fd = -1) {
    if (command.verb != Verb::signal && command.verb != Verb::map) last_operation = operation;
    if (backlog.empty()) {
      if (send_now(command, fd, MSG_DONTWAIT)) return XHAL_OK;
      if (errno != EAGAIN) {
        const std::string text =
            "remote:" + std::to_string(ordinal) + ": the card process does not answer";
        return fail(XHAL_ERR_DEVICE_LOST, text, operation);
      }
    }
    const int kept = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0 && kept < 0)
      return fail(XHAL_ERR_IO, std::string("no descriptor for the card: ") + std::strerror(errno),
                  operation);
    backlog.push_back({command, kept});
    more.notify_one();
    return XHAL_OK;
  }

  bool send_now(Command& command, int fd, int flags) const {
    char control[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&command, sizeof command};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (fd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      auto* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    ssize_t sent;
    do sent = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == sizeof command;
  }

  // Sends the backlog in its order. A command leaves it after it was sent, so that none overtakes
  // it; of a card that is gone the listener tells.
  void write() {
    std::unique_lock lock(mutex);
    for (;;) {
      more.wait(lock, [this] { return stopping || !backlog.empty(); });
      if (backlog.empty()) return;
      Unsent& first = backlog.front();
      lock.unlock();
      // A command that cannot be sent is a card that is gone: nothing after it may run.
      if (!send_now(first.command, first.fd, 0)) shutdown(socket, SHUT_RDWR);
      if (first.fd >= 0) close(first.fd);
      lock.lock();
      backlog.pop_front();
    }
  }

  // The number by which the card knows the shared memory that `address` lies in; sends it when
  // it is new.
  xhal_status file_of(const void* address, uint32_t* file, uint64_t* offset) {
    int32_t fd = -1;
    uint64_t size = 0;
    if (const auto s = host().shared_memory(address, &fd, offset, &size); s != XHAL_OK) return s;
    const uint64_t start = reinterpret_cast<uint64_t>(address) - *offset;
    const auto known = files.find(start);
    if (known != files.end()) {
      *file = known->second;
      return XHAL_OK;
    }
    *file = files[start] = next_file++;
    Command c{};
    c.verb = Verb::map;
    c.file = *file;
    c.size = size;
    const auto s = send_command(c, "map", fd);
    if (s != XHAL_OK) files.erase(start);  // the card does not know it
    return s;
  }

  xhal_device* device;
  uint32_t ordinal;
  uint64_t base = 0;
  pid_t pid = -1;
  int socket = -1, resume = -1;
  std::atomic<bool> stopping{false};
  HiddenOrder order;
  std::thread listener, writer;
  struct Unsent {
    Command command;
    int fd;
  };
  std::mutex mutex;  // of the order of commands, and what follows
  std::condition_variable more;
  std::deque<Unsent> backlog;
  std::string last_operation = "nothing";
  std::map<uint64_t, uint32_t> files;
  uint32_t next_file = 1;
  uint64_t used = 0;
  std::mutex calls_mutex;  // of what follows
  std::map<uint64_t, Call> calls;
  uint64_t next_call = 0;
};

struct Kernel : Object {
  Verb verb;
  xhal_status query(xhal_kernel_properties*) { return XHAL_OK; }
};

struct Module : Object {
  const xhal_dispatch* table;
  xhal_status kernel(xhal_string name, xhal_kernel** kernel) {
    auto* k = make<Kernel>(table, XHAL_KIND_KERNEL, kernel);
    k->verb = view(name) == "hang" ? Verb::hang : Verb::fail;
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }
};

struct Stream : Object {
  Stream(Card* c, xhal_timeline* t) : card(c), timeline(t) {}

  bool on_card(uint64_t address) const { return address - card->base < remote::kMemoryBytes; }

  xhal_status copy(uint64_t dst, uint64_t src, uint64_t size) {
    const std::lock_guard lock(card->mutex);
    Command c{};
    c.verb = on_card(dst) && on_card(src) ? Verb::copy
             : on_card(dst)               ? Verb::copy_in
                                          : Verb::copy_out;
    c.size = size;
    c.dst = dst - card->base;
    c.src = src - card->base;
    xhal_status s = XHAL_OK;
    if (c.verb == Verb::copy_in) s = card->file_of(reinterpret_cast<void*>(src), &c.file, &c.src);
    if (c.verb == Verb::copy_out) s = card->file_of(reinterpret_cast<void*>(dst), &c.file, &c.dst);
    return s == XHAL_OK ? card->send_command(c, "copy") : s;
  }
  xhal_status fill(uint64_t dst, uint64_t size, uint64_t pattern, uint32_t pattern_bytes) {
    const std::lock_guard lock(card->mutex);
    Command c{};
    c.verb = Verb::fill;
    c.dst = dst - card->base;
    c.size = size;
    c.pattern = pattern;
    c.pattern_bytes = pattern_bytes;
    return card->send_command(c, "fill");
  }
  xhal_status host_call(xhal_host_fn callback, void* user, uint32_t) {
    const std::lock_guard lock(card->mutex);
    Command c{};
    c.verb = Verb::call;
    {
      const std::lock_guard inner(card->calls_mutex);
      c.timeline = ++card->next_call;
      card->calls[c.timeline] = {callback, user};
    }
    const auto s = card->send_command(c, "host_call");
    if (s == XHAL_OK) return s;
    // What is refused is not called; what the listener has dropped meanwhile was accepted.
    const std::lock_guard inner(card->calls_mutex);
    return card->calls.erase(c.timeline) == 0 ? XHAL_OK : s;
  }
  xhal_status wait(xhal_timeline* other, uint64_t value) {
    // Its signal is in the card's one queue already, so order holds by itself; only failure must
    // be passed on.
    xhal_error error{};
    if (host().timeline_poll(other, value, &error) < 0)
      return fail_dependent(timeline, "stream_wait", error);
    return XHAL_OK;
  }
  xhal_status signal(xhal_timeline* target, uint64_t value, xhal_timestamp*) {
    const std::lock_guard lock(card->mutex);
    Command c{};
    c.verb = Verb::signal;
    c.value = value;
    c.timeline = reinterpret_cast<uint64_t>(target);
    auto* cell = host().timeline_cell(target);
    if (const auto s = card->file_of(cell, &c.file, &c.cell); s != XHAL_OK) return s;
    card->order.will_raise(cell);
    return card->send_command(c, "signal");
  }
  xhal_status kernel_launch(xhal_kernel* kernel, const xhal_grid*, const xhal_kernel_arg*,
                            uint32_t) {
    const std::lock_guard lock(card->mutex);
    Command c{};
    c.verb = from_handle<Kernel>(kernel).verb;
    c.timeline = reinterpret_cast<uint64_t>(timeline);
    return card->send_command(c, c.verb == Verb::hang ? "hang" : "fail");
  }
  // Waits until the card has done everything it was given: until then it raises timelines, also
  // those of work that has failed, and their cells may not be given to others.
  void settle() {
    if (std::this_thread::get_id() == card->listener.get_id()) return;
    using Done = std::promise<void>;
    auto done = std::make_unique<Done>();
    auto has_run = done->get_future();
    const auto finish = [](void* user, xhal_status) {
      std::unique_ptr<Done>(static_cast<Done*>(user))->set_value();
    };
    if (host_call(finish, done.get(), 0) != XHAL_OK) return;  // lost: it raises nothing any more
    done.release();
    has_run.wait();
  }
  xhal_status recover(xhal_timeline* fresh) {
    settle();
    timeline = fresh;
    return XHAL_OK;
  }
  xhal_status destroy() {
    settle();
    return xhal::plugin::destroy(this);
  }

  Card* card;
  xhal_timeline* timeline;
};

struct Context : Object {
  xhal_status memory_alloc(const xhal_memory_info* info, uint64_t* address) {
    const std::lock_guard lock(card->mutex);
    const uint64_t size = (info->size_bytes + 4095) / 4096 * 4096;
    if (info->kind != XHAL_MEMORY_DEVICE)
      return fail(XHAL_ERR_UNSUPPORTED, "the card has device memory only");
    if (card->used + size > remote::kMemoryBytes)
      return fail(XHAL_ERR_OUT_OF_MEMORY, "the card's 64 MiB are used up");
    const uint64_t at = card->base + card->used;
    if (const auto s = host().range_add(device, to_handle<xhal_context>(this), at, info->size_bytes,
                                        XHAL_MEMORY_DEVICE, 0);
        s != XHAL_OK) {
      return s;
    }
    card->used += size;
    *address = at;
    return XHAL_OK;
  }
  xhal_status memory_free(uint64_t address) { return host().range_remove(address); }
  xhal_status host_register(void* memory, uint64_t, uint64_t* address) {
    *address = reinterpret_cast<uint64_t>(memory);
    return XHAL_OK;
  }
  // The address may come back as other memory: the card must not know it by its old file.
  xhal_status host_unregister(void* memory) {
    const std::lock_guard lock(card->mutex);
    card->files.erase(reinterpret_cast<uint64_t>(memory));
    return XHAL_OK;
  }
  xhal_status stream_create(const xhal_stream_info*, xhal_timeline* timeline,
                            xhal_stream** stream) {
    make<Stream>(table, XHAL_KIND_STREAM, stream, card, timeline);
    return XHAL_OK;
  }
  xhal_status module_load(const xhal_module_info* info, xhal_module** module) {
    if (view(info->format) != "remote")
      return fail(XHAL_ERR_UNSUPPORTED, "the only module format is \"remote\"");
    make<Module>(table, XHAL_KIND_MODULE, module)->table = table;
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }

  const xhal_dispatch* table;
  xhal_device* device;
  Card* card;
};

struct Device : Object {
  std::unique_ptr<Card> card;
  Context* context = nullptr;

  xhal_status close() {
    card.reset();
    if (context != nullptr) xhal::plugin::destroy(context);
    return xhal::plugin::destroy(this);
  }
  xhal_status telemetry(xhal_sample*, uint32_t) { return XHAL_OK; }
  // For tests: which process to kill.
  xhal_status limit(uint32_t key, uint64_t* value) {
    if (key != XHAL_LIMIT_COMPUTE_UNITS) return fail(XHAL_ERR_UNSUPPORTED, "unknown limit");
    *value = static_cast<uint64_t>(card->pid);
    return XHAL_OK;
  }
};

struct Remote : Vendor {
  using device = Device;
  using context = Context;
  using stream = Stream;
  using module = Module;
  using kernel = Kernel;

  static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
    *count = 1;
    if (capacity == 0) return XHAL_OK;
    devices[0].type = XHAL_DEVICE_EXTENSION;
    devices[0].flags = XHAL_DEVICE_EMULATED;
    devices[0].numa_node = -1;
    devices[0].memory_bytes = remote::kMemoryBytes;
    devices[0].capabilities[0] = 1u << XHAL_CAP_MODULE | 1u << XHAL_CAP_HOST_REGISTER;
    std::strcpy(devices[0].name, "Card in another process");
    return XHAL_OK;
  }
  static xhal_status device_open(const xhal_plugin_open& open, xhal_device_info&,
                                 xhal_device** result, xhal_context** default_context) {
    auto* device = make<Device>(open.table, XHAL_KIND_DEVICE, result);
    if ((open.flags & XHAL_OPEN_OBSERVE) != 0) return XHAL_OK;
    device->card = std::make_unique<Card>(*result, open.ordinal);
    auto* context = make<Context>(open.table, XHAL_KIND_CONTEXT, default_context);
    context->table = open.table;
    context->device = *result;
    context->card = device->card.get();
    device->context = context;
    return XHAL_OK;
  }
};

}  // namespace

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  return negotiate<Remote>(request, reply, "remote test plugin");
}
