// SPDX-License-Identifier: Apache-2.0
#include "bootstrap/rendezvous.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/failure.hpp"
#include "bootstrap/socket.hpp"

namespace xcoll::bootstrap {
namespace {

template <size_t N>
void copy_text(char (&to)[N], const std::string& from) {
  std::copy_n(from.data(), std::min(from.size(), N - 1), to);
}

bool send_word(const Fd& socket, Word word, const Failure* failure = nullptr,
               const std::vector<int>& fds = {}) {
  Message message{word, failure ? failure->status() : XCOLL_OK, {}};
  if (failure) {
    const std::string& text = failure->text();
    std::copy_n(text.data(), std::min(text.size(), message.text.size() - 1), message.text.data());
  }
  return send_bytes(socket, &message, sizeof(message), fds);
}

// Rank 0's side.
class Host {
 public:
  Host(const IdBody& id, uint32_t ranks, uint64_t deadline_ns)
      : id_(id),
        deadline_ns_(deadline_ns),
        members_(ranks),
        listener_(listen_on(id, ranks)),
        segment_(shm::Segment::create(ranks, &memory_)) {}

  Membership run() {
    try {
      while (accept_newcomers(), !all_joined()) wait("has not joined");
      shm::Processes processes = introduce();
      while (hear_guests(), !all_ready()) wait("has joined but does not answer");
      for (const Member& member : guests()) send_word(member.socket, Word::kGo);
      return Membership{std::move(segment_), std::move(processes)};
    } catch (const Failure& failure) {
      for (const Member& member : guests()) {
        if (member.socket) send_word(member.socket, Word::kFailed, &failure);
      }
      for (const Member& newcomer : newcomers_) send_word(newcomer.socket, Word::kFailed, &failure);
      throw;
    }
  }

 private:
  struct Member {
    Fd socket;
    Peer peer{};
    Hello hello{};
    bool ready = false;
  };

  uint32_t ranks() const { return static_cast<uint32_t>(members_.size()); }
  std::span<Member> guests() { return std::span(members_).subspan(1); }
  bool all_joined() {
    return std::ranges::all_of(guests(), [](const Member& member) { return bool(member.socket); });
  }
  bool all_ready() {
    return std::ranges::all_of(guests(), [](const Member& member) { return member.ready; });
  }

  void accept_newcomers() {
    while (Fd socket{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)}) {
      Member newcomer;
      newcomer.peer = peer_of(socket);
      newcomer.socket = std::move(socket);
      newcomers_.push_back(std::move(newcomer));
    }
    for (size_t i = newcomers_.size(); i-- > 0;) {
      Member& newcomer = newcomers_[i];
      const Received got = receive_bytes(newcomer.socket, &newcomer.hello, sizeof(newcomer.hello));
      if (got == Received::kNothingYet) continue;
      // Another user, or a peer without the secret: unauthenticated, closed without a reply.
      const bool ours = got == Received::kWhole && newcomer.peer.uid == ::geteuid() &&
                        newcomer.hello.secret == id_.secret;
      if (ours) admit(newcomer);
      newcomers_.erase(newcomers_.begin() + static_cast<ptrdiff_t>(i));
    }
    hear_guests();
  }

  void admit(Member& newcomer) {
    const Hello& hello = newcomer.hello;
    if (hello.protocol != kProtocol) {
      throw Failure(
          XCOLL_ERR_UNSUPPORTED,
          "process {} speaks bootstrap version {}, rank 0 speaks {}: install the same libxcoll "
          "for all ranks",
          newcomer.peer.pid, hello.protocol, kProtocol);
    }
    if (hello.ranks != static_cast<int32_t>(ranks())) {
      throw Failure(XCOLL_ERR_INVALID_ARGUMENT,
                    "ranks disagree on their number: rank {} (pid {}) says {}, rank 0 says {}",
                    hello.rank, newcomer.peer.pid, hello.ranks, ranks());
    }
    if (hello.rank <= 0 || hello.rank >= hello.ranks) {
      throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "process {} calls itself rank {} of {}",
                    newcomer.peer.pid, hello.rank, ranks());
    }
    Member& member = members_[static_cast<uint32_t>(hello.rank)];
    if (member.socket) {
      throw Failure(XCOLL_ERR_INVALID_ARGUMENT,
                    "two ranks call themselves rank {} of {}: pid {} and pid {}", hello.rank,
                    ranks(), member.peer.pid, newcomer.peer.pid);
    }
    deadline_ns_ = std::min(deadline_ns_, deadline_of(now_ns(), hello.backoff_ns));
    member = std::move(newcomer);
  }

  // Writes who is who into the segment, and sends it with a pidfd of each process, or with none
  // where one is missing: processes are then known by pid and start time.
  shm::Processes introduce() {
    members_[0].peer.pid = ::getpid();
    bool has_pidfds = true;
    std::vector<Fd> pidfds;
    std::vector<int64_t> pids;
    for (uint32_t rank = 0; rank < ranks(); ++rank) {
      const Member& member = members_[rank];
      const auto process = std::ranges::find(pids, member.peer.pid) - pids.begin();
      if (process == std::ssize(pids)) {
        pids.push_back(member.peer.pid);
        pidfds.push_back(shm::open_pidfd(member.peer.pid));
        has_pidfds = has_pidfds && pidfds.back();
      }
      shm::RankInfo& info = segment_.info(rank);
      info.pid = member.peer.pid;
      info.start_time = shm::start_time_of(member.peer.pid);
      info.process = static_cast<uint32_t>(process);
      copy_text(info.host, rank == 0 ? host_name() : member.hello.host.data());
    }
    if (!has_pidfds) pidfds.clear();
    std::vector<int> fds{memory_.get()};
    for (const Fd& pidfd : pidfds) fds.push_back(pidfd.get());
    for (const Member& member : guests()) {
      if (send_word(member.socket, Word::kMap, nullptr, fds)) continue;
      // The kernel limits the descriptors of a user that are in flight (RLIMIT_NOFILE).
      const bool too_many = errno == ETOOMANYREFS;
      if (!too_many || !send_word(member.socket, Word::kMap, nullptr, {memory_.get()})) {
        fail_lost(member);
      }
    }
    return shm::Processes(std::move(pidfds));
  }

  // A guest says that it is ready, or why it gives up, or ends.
  void hear_guests() {
    for (Member& member : guests()) {
      if (!member.socket) continue;
      Message message;
      const Received got = receive_bytes(member.socket, &message, sizeof(message));
      if (got == Received::kGone) fail_lost(member);
      if (got == Received::kNothingYet) continue;
      if (message.word == Word::kFailed) {
        throw Failure(message.status, "rank {} (pid {}): {}", member.hello.rank, member.peer.pid,
                      message.text.data());
      }
      member.ready = true;
    }
  }

  void wait(const char* what_is_missing) {
    if (now_ns() >= deadline_ns_) fail_missing(what_is_missing);
    std::vector<int> sockets{listener_.get()};
    for (const Member& member : guests()) {
      if (member.socket) sockets.push_back(member.socket.get());
    }
    for (const Member& newcomer : newcomers_) sockets.push_back(newcomer.socket.get());
    wait_readable(sockets, deadline_ns_);
  }

  [[noreturn]] void fail_lost(const Member& member) {
    throw Failure(XCOLL_ERR_RANK_FAILED,
                  "rank {} of {} (host {}, pid {}) ended while the communicator was being made",
                  member.hello.rank, ranks(), member.hello.host.data(), member.peer.pid);
  }

  [[noreturn]] void fail_missing(const char* what_is_missing) {
    const bool joining = !all_joined();
    std::string missing;
    for (uint32_t rank = 1; rank < ranks(); ++rank) {
      const Member& member = members_[rank];
      if (joining ? bool(member.socket) : member.ready) continue;
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rank);
      if (member.socket) missing += fmt::format(" (pid {})", member.peer.pid);
    }
    throw Failure(
        XCOLL_ERR_TIMEOUT,
        "the communicator of {} ranks was not made in time: rank {} {}. Check that every rank "
        "runs and calls xcoll_comm_init with this id, or raise the deadline with XCOLL_TIMEOUT_S",
        ranks(), missing, what_is_missing);
  }

  IdBody id_;
  uint64_t deadline_ns_;
  std::vector<Member> members_;    // by rank; [0] is this rank
  std::vector<Member> newcomers_;  // have connected, have not said who they are
  Fd listener_;
  Fd memory_;
  shm::Segment segment_;
};

// The side of every other rank.
class Guest {
 public:
  Guest(const IdBody& id, uint32_t ranks, uint32_t rank, uint64_t deadline_ns)
      : id_(id), ranks_(ranks), rank_(rank), deadline_ns_(deadline_ns) {}

  Membership run() {
    connect();
    introduce_myself();
    std::vector<Fd> fds;
    await(Word::kMap, &fds);
    if (fds.empty()) throw Failure(XCOLL_ERR_INTERNAL, "rank 0 sent no shared memory");
    const Fd memory = std::move(fds.front());
    fds.erase(fds.begin());
    try {
      shm::Segment segment = shm::Segment::map(memory, ranks_);
      uint32_t processes = 0;
      for (uint32_t rank = 0; rank < ranks_; ++rank) {
        processes = std::max(processes, segment.info(rank).process + 1);
      }
      // The kernel drops descriptors that do not fit into our table (MSG_CTRUNC).
      if (fds.size() != processes) fds.clear();
      Membership membership{std::move(segment), shm::Processes(std::move(fds))};
      send_word(host_, Word::kReady);
      await(Word::kGo, nullptr);
      return membership;
    } catch (const Failure& failure) {
      send_word(host_, Word::kFailed, &failure);
      throw;
    }
  }

 private:
  // Rank 0 may come later than we do: its name appears when it listens.
  void connect() {
    int pause_ms = 1;
    while (!(host_ = try_connect(id_))) {
      if (now_ns() >= deadline_ns_) {
        throw Failure(
            XCOLL_ERR_TIMEOUT,
            "the communicator of {} ranks was not made in time: rank 0 has not joined (rank {} "
            "waits for it). Check that rank 0 runs and calls xcoll_comm_init with this id, and "
            "that the id was not used before",
            ranks_, rank_);
      }
      ::poll(nullptr, 0, pause_ms);
      pause_ms = std::min(2 * pause_ms, 16);
    }
    const Peer peer = peer_of(host_);
    if (peer.uid != ::geteuid() && peer.uid != 0) {
      throw Failure(XCOLL_ERR_INVALID_ARGUMENT,
                    "process {} of user {} listens under this id; all ranks must run as one user",
                    peer.pid, peer.uid);
    }
    host_pid_ = peer.pid;
  }

  void introduce_myself() {
    Hello hello{};
    hello.protocol = kProtocol;
    hello.rank = static_cast<int32_t>(rank_);
    hello.ranks = static_cast<int32_t>(ranks_);
    hello.secret = id_.secret;
    const uint64_t now = now_ns();
    hello.backoff_ns = deadline_ns_ > now ? deadline_ns_ - now : 0;
    const std::string host = host_name();
    std::copy_n(host.data(), std::min(host.size(), hello.host.size() - 1), hello.host.data());
    if (!send_bytes(host_, &hello, sizeof(hello))) fail_lost();
  }

  // Rank 0 knows our deadline and answers by then with the names of the missing; if even that does
  // not come, it is rank 0 that is stuck.
  void await(Word expected, std::vector<Fd>* fds) {
    const uint64_t give_up_ns = deadline_of(deadline_ns_, 100'000'000);
    Message message;
    for (;;) {
      const Received got = receive_bytes(host_, &message, sizeof(message), fds);
      if (got == Received::kWhole) break;
      if (got == Received::kGone) fail_lost();
      if (now_ns() >= give_up_ns) {
        throw Failure(
            XCOLL_ERR_TIMEOUT,
            "the communicator of {} ranks was not made in time: rank 0 (pid {}) has joined but "
            "does not answer rank {}",
            ranks_, host_pid_, rank_);
      }
      wait_readable({host_.get()}, give_up_ns);
    }
    if (message.word == Word::kFailed) throw Failure(message.status, "{}", message.text.data());
    if (message.word != expected) throw Failure(XCOLL_ERR_INTERNAL, "unexpected word from rank 0");
  }

  [[noreturn]] void fail_lost() {
    throw Failure(XCOLL_ERR_RANK_FAILED,
                  "rank 0 of {} (pid {}) ended while the communicator was being made", ranks_,
                  host_pid_);
  }

  IdBody id_;
  uint32_t ranks_;
  uint32_t rank_;
  uint64_t deadline_ns_;
  Fd host_;
  int64_t host_pid_ = 0;
};

}  // namespace

Membership meet(const IdBody& id, uint32_t ranks, uint32_t rank, uint64_t deadline_ns) {
  if (rank == 0) return Host(id, ranks, deadline_ns).run();
  return Guest(id, ranks, rank, deadline_ns).run();
}

}  // namespace xcoll::bootstrap
