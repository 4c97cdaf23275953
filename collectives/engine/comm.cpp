// SPDX-License-Identifier: Apache-2.0
#include "engine/comm.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/failure.hpp"
#include "engine/failure_board.hpp"
#include "xhal_base/environment.hpp"

namespace xcoll::engine {
namespace {

constexpr uint64_t kDefaultTimeoutNs = 30'000'000'000;
constexpr uint32_t kDefaultRecorderEntries = 4096;
constexpr uint32_t kMaxRecorderEntries = 1u << 24;

std::atomic<uint32_t> forks{0};

void watch_forks() {
  static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  if (registered != 0) throw Failure(XCOLL_ERR_OUT_OF_MEMORY, "pthread_atfork failed");
}

uint64_t timeout_from_environment() {
  // In seconds; a nanosecond is the least there is.
  const auto asked = xhal::base::environment_number("XCOLL_TIMEOUT_S", 1e-9, 1e9);
  if (!asked.problem.empty()) throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "{}", asked.problem);
  return asked.value ? static_cast<uint64_t>(*asked.value * 1e9) : kDefaultTimeoutNs;
}

}  // namespace

uint32_t fork_generation() { return forks.load(std::memory_order_relaxed); }

Config Config::of(const xcoll_config* config) {
  Config result{timeout_from_environment(), kDefaultRecorderEntries, "comm"};
  if (!config) return result;
  if (config->struct_size < sizeof(xcoll_config)) {
    throw Failure(XCOLL_ERR_STRUCT_SIZE,
                  "xcoll_config has struct_size {}, the first release has {}: set it to "
                  "sizeof(xcoll_config)",
                  config->struct_size, sizeof(xcoll_config));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(config);
  if (std::any_of(bytes + sizeof(xcoll_config), bytes + config->struct_size,
                  [](unsigned char byte) { return byte != 0; })) {
    throw Failure(XCOLL_ERR_UNKNOWN_FIELD,
                  "xcoll_config has fields that this libxcoll does not know: use a newer one");
  }
  if (config->timeout_ns != 0) result.timeout_ns = config->timeout_ns;
  if (config->recorder_entries > kMaxRecorderEntries) {
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "recorder_entries is {}; at most {} are possible",
                  config->recorder_entries, kMaxRecorderEntries);
  }
  if (config->recorder_entries != 0) result.recorder_entries = config->recorder_entries;
  if (config->name[0] != 0)
    result.name.assign(config->name, ::strnlen(config->name, sizeof(config->name)));
  return result;
}

std::unique_ptr<Comm> Comm::join(const xcoll_unique_id& id, int32_t ranks, int32_t rank,
                                 const Config& config) {
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "rank {} of {} ranks is not possible", rank, ranks);
  }
  if (ranks > static_cast<int32_t>(shm::kMaxRanks)) {
    throw Failure(XCOLL_ERR_UNSUPPORTED,
                  "{} ranks: this version of libxcoll connects up to {} on one host", ranks,
                  shm::kMaxRanks);
  }
  watch_forks();
  const auto n = static_cast<uint32_t>(ranks);
  const auto me = static_cast<uint32_t>(rank);
  return std::unique_ptr<Comm>(new Comm(
      bootstrap::meet(bootstrap::parse_id(id), n, me, deadline_of(now_ns(), config.timeout_ns)), me,
      config));
}

Comm::Comm(bootstrap::Membership membership, uint32_t rank, Config config)
    : membership_(std::move(membership)),
      rank_(rank),
      config_(std::move(config)),
      forks_(fork_generation()),
      engine_(membership_.segment, membership_.processes, rank, config_.recorder_entries,
              config_.timeout_ns) {
  engine_.on_failure = [this] { dump_into_recorder_dir(); };
  streams_ = std::make_unique<StreamOrder>(engine_);
}

Comm::~Comm() { streams_->detach(); }

void Comm::set_timeout(uint64_t timeout_ns) {
  if (timeout_ns == 0) throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "a deadline of 0 is not possible");
  engine_.set_timeout(timeout_ns);
}

bool Comm::forked() const { return forks_ != fork_generation(); }

void Comm::check_process() const {
  if (!forked()) return;
  throw Failure(
      XCOLL_ERR_FORKED,
      "this communicator belongs to the parent of this forked process; make a new one here, or "
      "start processes with spawn instead of fork");
}

Operation Comm::check(const xcoll_op& op) const {
  return Operation::check(op, membership_.segment.ranks(), rank_, tuner_);
}

std::shared_ptr<Batch> Comm::submit(std::vector<Operation> operations, xhal_stream* stream) {
  if (!stream) {
    auto batch = std::make_shared<Batch>(std::move(operations));
    engine_.start(batch);
    return batch;
  }
  try {
    return streams_->submit(std::move(operations), stream);
  } catch (const Failure& failure) {
    // The other ranks wait for an operation that cannot come: let them know.
    if (failure.status() == XCOLL_ERR_DEVICE) {
      publish_failure(membership_.segment,
                      engine_.diagnosis().device_failed(nullptr, failure.text()));
    }
    throw;
  }
}

xcoll_status Comm::abort(const char* reason) {
  publish_failure(membership_.segment, engine_.diagnosis().aborted(reason));
  return XCOLL_OK;
}

xcoll_status Comm::async_error() {
  if (!has_failed(membership_.segment)) {
    const int32_t dead = engine_.diagnosis().find_dead();
    if (dead >= 0) {
      publish_failure(membership_.segment,
                      engine_.diagnosis().lost(static_cast<uint32_t>(dead), nullptr));
    }
  }
  return engine_.sticky_error();
}

xcoll_failure Comm::failure() const { return read_failure(membership_.segment); }

template <typename T>
std::vector<T> Comm::gather_from_all(const T& own) {
  std::vector<T> all(membership_.segment.ranks());
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = XCOLL_ALL_GATHER;
  op.send = &own;
  op.recv = all.data();
  op.count = sizeof(T);
  op.dtype = XCOLL_U8;
  const xcoll_status status = engine_.run(check(op));
  if (status != XCOLL_OK) throw Failure(status, std::string(last_error()));
  return all;
}

std::unique_ptr<Comm> Comm::split(int32_t color, int32_t key) {
  struct Wish {
    int32_t color, key, rank;
  };
  const std::vector<Wish> wishes = gather_from_all(Wish{color, key, rank()});
  std::vector<Wish> mine;
  std::ranges::copy_if(wishes, std::back_inserter(mine),
                       [&](const Wish& wish) { return wish.color == color; });
  std::ranges::sort(mine, [](const Wish& a, const Wish& b) {
    return a.key != b.key ? a.key < b.key : a.rank < b.rank;
  });
  // The first rank of each color makes the id of its group; one gather brings all ids to all.
  xcoll_unique_id own{};
  if (color >= 0 && mine.front().rank == rank()) {
    const bootstrap::IdBody body = bootstrap::make_id();
    std::memcpy(own.bytes, &body, sizeof(body));
  }
  const std::vector<xcoll_unique_id> ids = gather_from_all(own);
  if (color < 0) return nullptr;
  const auto me = std::ranges::find(mine, rank(), &Wish::rank) - mine.begin();
  return join(ids[static_cast<size_t>(mine.front().rank)], static_cast<int32_t>(mine.size()),
              static_cast<int32_t>(me), config_);
}

void Comm::dump_into_recorder_dir() const {
  const auto dir = xhal::base::environment_text("XCOLL_RECORDER_DIR");
  if (dir.empty()) return;
  std::string name = config_.name;
  std::ranges::replace(name, '/', '_');
  const auto path = fmt::format("{}/{}.{}.{}.json", dir, name, ::getpid(), rank_);
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  // The sticky error is what matters to the caller; a directory that cannot be written must
  // not hide it.
  if (!file) return;
  try {
    dump(file.get());
  } catch (const std::exception&) {
  }
}

}  // namespace xcoll::engine
