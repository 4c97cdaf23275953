// SPDX-License-Identifier: Apache-2.0
#include "engine/operation.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/failure.hpp"
#include "transport/shm/layout.hpp"

namespace xcoll::engine {
namespace {

using kernels::Type;

constexpr uint64_t kMaxBytes = uint64_t{1} << 46;
constexpr uint32_t kFirstOpBytes = 72;                    // sizeof(xcoll_op) of the first release
constexpr uint64_t kMaxPieces = (uint64_t{1} << 24) - 1;  // a tag has 24 bits for the piece

struct TypeInfo {
  xcoll_dtype dtype;
  Type type;
  uint32_t bytes;
  const char* name;
};
constexpr std::array<TypeInfo, kernels::kTypes> kTypeInfos = {{
    {XCOLL_I8, kernels::kI8, 1, "i8"},
    {XCOLL_I32, kernels::kI32, 4, "i32"},
    {XCOLL_I64, kernels::kI64, 8, "i64"},
    {XCOLL_U8, kernels::kU8, 1, "u8"},
    {XCOLL_U32, kernels::kU32, 4, "u32"},
    {XCOLL_U64, kernels::kU64, 8, "u64"},
    {XCOLL_F16, kernels::kF16, 2, "f16"},
    {XCOLL_F32, kernels::kF32, 4, "f32"},
    {XCOLL_F64, kernels::kF64, 8, "f64"},
    {XCOLL_BF16, kernels::kBF16, 2, "bf16"},
    {XCOLL_BOOL, kernels::kBool, 1, "bool"},
}};
constexpr const char* kReductionNames[] = {"sum",  "avg",  "min", "max",
                                           "prod", "band", "bor", "bxor"};

constexpr const char* kKindNames[] = {
    "all-reduce",     "broadcast",        "reduce", "all-gather", "all-gather-v",
    "reduce-scatter", "reduce-scatter-v", "gather", "scatter",    "all-to-all",
    "all-to-all-v",   "barrier",          "send",   "recv"};

const TypeInfo* find_type(xcoll_dtype dtype) {
  for (const TypeInfo& info : kTypeInfos) {
    if (info.dtype == dtype) return &info;
  }
  return nullptr;
}

bool reduces(xcoll_kind kind) {
  return kind == XCOLL_ALL_REDUCE || kind == XCOLL_REDUCE || kind == XCOLL_REDUCE_SCATTER ||
         kind == XCOLL_REDUCE_SCATTER_V;
}
bool rooted(xcoll_kind kind) {
  return kind == XCOLL_BROADCAST || kind == XCOLL_REDUCE || kind == XCOLL_GATHER ||
         kind == XCOLL_SCATTER;
}
bool has_counts(xcoll_kind kind) {
  return kind == XCOLL_ALL_GATHER_V || kind == XCOLL_REDUCE_SCATTER_V || kind == XCOLL_ALL_TO_ALL_V;
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 32);
}

// Builds an Operation out of the caller's words.
class Checker {
 public:
  Checker(const xcoll_op& op, uint32_t ranks, uint32_t rank)
      : op_(op), ranks_(ranks), rank_(rank) {}

  Operation run(const tuner::Tuner& tuner) {
    if (op_.kind < 0 || op_.kind > XCOLL_RECV) refuse("{} is no kind of operation", op_.kind);
    out_.kind = op_.kind;
    out_.timeout_ns = op_.timeout_ns;
    check_type();
    check_peer();
    divide();
    if (out_.is_transfer()) {
      if (out_.kind == XCOLL_SEND) need_send();
      if (out_.kind == XCOLL_RECV) need_recv();
    } else {
      choose_buffers();
    }
    check_overlap();
    sign(tuner);
    return std::move(out_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    const bool named = op_.kind >= 0 && op_.kind <= XCOLL_RECV;
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "{} was not started: {}",
                  named ? kKindNames[op_.kind] : "the operation",
                  fmt::format(format, std::forward<Args>(args)...));
  }

  void check_type() {
    if (op_.kind == XCOLL_BARRIER) return;
    const TypeInfo* info = find_type(op_.dtype);
    if (!info) refuse("{:#x} is no xcoll_dtype", op_.dtype);
    out_.type = info->type;
    out_.element_bytes = info->bytes;
    if (!reduces(op_.kind)) return;
    if (op_.reduction < 0 || op_.reduction > XCOLL_BXOR)
      refuse("{} is no reduction", op_.reduction);
    out_.combine = kernels::best_table().combine[info->type][op_.reduction];
    if (!out_.combine) {
      refuse("{} is not defined for {}", kReductionNames[op_.reduction], info->name);
    }
  }

  void check_peer() {
    if (!rooted(op_.kind) && !out_.is_transfer()) return;
    if (op_.peer < 0 || op_.peer >= static_cast<int32_t>(ranks_)) {
      refuse("{} {} is not a rank: the communicator has ranks 0 to {}",
             rooted(op_.kind) ? "root" : "peer", op_.peer, ranks_ - 1);
    }
    out_.peer = op_.peer;
    if (out_.is_transfer()) out_.tag = op_.tag;
  }

  bool at_root() const { return !rooted(op_.kind) || out_.peer == static_cast<int32_t>(rank_); }

  void divide() {
    if (has_counts(op_.kind)) {
      copy_counts();
    } else {
      check_size(op_.count, ranks_);
      out_.count = op_.kind == XCOLL_BARRIER ? 0 : op_.count;
    }
    const uint64_t count = out_.count;
    const uint64_t line = 64 / out_.element_bytes;
    switch (op_.kind) {
      case XCOLL_ALL_REDUCE:
      case XCOLL_REDUCE:
        out_.send_blocks = out_.recv_blocks = Blocks::divided(count, ranks_, line);
        break;
      case XCOLL_ALL_GATHER:
      case XCOLL_GATHER:
        out_.send_blocks = Blocks::whole(count);
        out_.recv_blocks = Blocks::equal(count, ranks_);
        break;
      case XCOLL_REDUCE_SCATTER:
      case XCOLL_SCATTER:
        out_.send_blocks = Blocks::equal(count, ranks_);
        out_.recv_blocks = Blocks::whole(count);
        break;
      case XCOLL_ALL_TO_ALL:
        out_.send_blocks = out_.recv_blocks = Blocks::equal(count, ranks_);
        break;
      case XCOLL_ALL_GATHER_V:
        out_.recv_blocks = table(0);
        out_.send_blocks = Blocks::whole(out_.counts[rank_]);
        break;
      case XCOLL_REDUCE_SCATTER_V:
        out_.send_blocks = table(0);
        out_.recv_blocks = Blocks::whole(out_.counts[rank_]);
        break;
      case XCOLL_ALL_TO_ALL_V:
        out_.send_blocks = table(0);
        out_.recv_blocks = table(1);
        break;
      default:  // broadcast, send, recv; barrier has nothing
        out_.send_blocks = out_.recv_blocks = Blocks::whole(count);
    }
    out_.largest_block = std::max(out_.send_blocks.largest(), out_.recv_blocks.largest());
    check_pieces();
  }

  void check_size(uint64_t count, uint64_t times) const {
    if (count > kMaxBytes / out_.element_bytes / times) refuse("{} elements are too many", count);
  }
  void check_pieces() const {
    const uint64_t pieces = out_.largest_block * out_.element_bytes / shm::kMinCellBytes;
    if (!out_.is_transfer() && pieces >= kMaxPieces) {
      throw Failure(
          XCOLL_ERR_UNSUPPORTED,
          "{} was not started: {} elements for one rank are more than one call can move; divide it",
          kKindNames[op_.kind], out_.largest_block);
    }
  }

  // counts, offsets; for all-to-all-v those of send, then those of recv.
  void copy_counts() {
    append_counts(op_.send_counts);
    if (op_.kind == XCOLL_ALL_TO_ALL_V) append_counts(op_.recv_counts);
  }
  void append_counts(const uint64_t* counts) {
    if (!counts) refuse("its counts are NULL");
    const size_t begin = out_.counts.size();
    out_.counts.insert(out_.counts.end(), counts, counts + ranks_);
    uint64_t offset = 0;
    for (uint32_t rank = 0; rank < ranks_; ++rank) {
      check_size(out_.counts[begin + rank], ranks_);
      out_.counts.push_back(offset);
      offset += out_.counts[begin + rank];
    }
  }
  Blocks table(uint32_t which) const {
    const uint64_t* counts = out_.counts.data() + size_t{2} * which * ranks_;
    return Blocks::table(counts, counts + ranks_, ranks_);
  }

  void choose_buffers() {
    if (op_.kind == XCOLL_BARRIER) return;
    const bool sends = (op_.kind != XCOLL_BROADCAST && op_.kind != XCOLL_SCATTER) || at_root();
    const bool receives = (op_.kind != XCOLL_REDUCE && op_.kind != XCOLL_GATHER) || at_root();
    if (sends) need_send();
    if (receives) need_recv();
  }
  void need_send() {
    if (!op_.send && out_.send_bytes() > 0) refuse("send is NULL");
    out_.send = static_cast<const std::byte*>(op_.send);
  }
  void need_recv() {
    if (!op_.recv && out_.recv_bytes() > 0) refuse("recv is NULL");
    out_.recv = static_cast<std::byte*>(op_.recv);
  }

  void check_overlap() const {
    const std::byte *send = out_.send, *recv = out_.recv;
    if (!send || !recv || out_.send_bytes() == 0 || out_.recv_bytes() == 0) return;
    const bool apart = send + out_.send_bytes() <= recv || recv + out_.recv_bytes() <= send;
    if (apart) return;
    const auto own = static_cast<int16_t>(rank_);
    bool in_place = false;
    switch (op_.kind) {
      case XCOLL_ALL_REDUCE:
      case XCOLL_BROADCAST:
      case XCOLL_REDUCE:
      case XCOLL_ALL_TO_ALL:
        in_place = send == recv;
        break;
      case XCOLL_ALL_GATHER:
      case XCOLL_ALL_GATHER_V:
      case XCOLL_GATHER:
        in_place = send == recv + out_.recv_blocks[own].offset * out_.element_bytes;
        break;
      case XCOLL_REDUCE_SCATTER:
      case XCOLL_REDUCE_SCATTER_V:
      case XCOLL_SCATTER:
        in_place = recv == send + out_.send_blocks[own].offset * out_.element_bytes;
        break;
      default:
        break;
    }
    if (!in_place) {
      refuse("send and recv overlap; they must be apart, or in place exactly as the header states");
    }
  }

  void sign(const tuner::Tuner& tuner) {
    out_.post_bytes = largest_post() * out_.element_bytes;
    const schedule::Algorithm algorithm = out_.is_transfer()
                                              ? schedule::Algorithm::kPipelined
                                              : tuner.choose({op_.kind, ranks_, out_.post_bytes});
    Signature& signature = out_.signature;
    signature.words = static_cast<uint32_t>(op_.kind) | static_cast<uint32_t>(out_.type) << 16 |
                      static_cast<uint32_t>(algorithm) << 24;
    if (reduces(op_.kind)) signature.words |= static_cast<uint32_t>(op_.reduction) << 8;
    signature.root = rooted(op_.kind) ? out_.peer : -1;
    signature.count = out_.count;
    // Words and root enter as one 64-bit value and mix() is a bijection of it: calls of one count
    // that differ in kind, reduction, type, algorithm or root never have the same fingerprint.
    const uint64_t call = signature.words | static_cast<uint64_t>(signature.root + 1) << 32;
    uint64_t hash = mix(mix(0, call), out_.count);
    // The counts of all-to-all-v differ between ranks: they are compared pair by pair.
    if (!out_.is_all_to_all_v()) {
      for (const uint64_t count : out_.counts) hash = mix(hash, count);
    }
    signature.fingerprint = hash;
  }

  uint64_t largest_post() const {
    switch (op_.kind) {
      case XCOLL_ALL_GATHER_V:
        return out_.recv_blocks.largest();
      case XCOLL_ALL_TO_ALL_V:
        return 0;
      default:
        return out_.send_blocks.total();
    }
  }

  const xcoll_op& op_;
  uint32_t ranks_;
  uint32_t rank_;
  Operation out_;
};

static_assert(sizeof(xcoll_op) >= kFirstOpBytes);

// A structure of a newer program is taken when what this library does not know of it is zero; one
// of an older program ends earlier, and zero stands for the rest.
xcoll_op known_part(const xcoll_op& op) {
  if (op.struct_size < kFirstOpBytes) {
    throw Failure(
        XCOLL_ERR_STRUCT_SIZE,
        "xcoll_op has struct_size {}, the first release has {}: set it to sizeof(xcoll_op)",
        op.struct_size, kFirstOpBytes);
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(&op);
  for (size_t i = sizeof(xcoll_op); i < op.struct_size; ++i) {
    if (bytes[i] == 0) continue;
    throw Failure(
        XCOLL_ERR_UNKNOWN_FIELD,
        "byte {} of an xcoll_op is not zero and this libxcoll does not know it: use a newer one",
        i);
  }
  xcoll_op known{};
  std::memcpy(&known, &op, std::min<size_t>(op.struct_size, sizeof(xcoll_op)));
  return known;
}

}  // namespace

const char* kind_name(xcoll_kind kind) { return kKindNames[kind]; }
const char* type_name(kernels::Type type) { return kTypeInfos[type].name; }

std::string describe(const Signature& signature) {
  const xcoll_kind kind = signature.kind();
  if (kind < 0 || kind > XCOLL_RECV || signature.type() >= kernels::kTypes)
    return "an unknown operation";
  if (kind == XCOLL_BARRIER) return "barrier";
  std::string text = fmt::format("{} ({}", kKindNames[kind], kTypeInfos[signature.type()].name);
  if (!has_counts(kind)) text += fmt::format(" x {}", signature.count);
  if (reduces(kind)) text += fmt::format(", {}", kReductionNames[signature.reduction()]);
  if (signature.root >= 0) text += fmt::format(", root {}", signature.root);
  return text + ")";
}

uint64_t fingerprint_at(uint64_t fingerprint, uint64_t sequence) {
  return mix(fingerprint, sequence);
}

Operation Operation::check(const xcoll_op& op, uint32_t ranks, uint32_t rank,
                           const tuner::Tuner& tuner) {
  const xcoll_op known = known_part(op);
  return Checker(known, ranks, rank).run(tuner);
}

}  // namespace xcoll::engine

uint64_t xcoll_dtype_bytes(xcoll_dtype dtype) {
  const auto* info = xcoll::engine::find_type(dtype);
  return info ? info->bytes : 0;
}
