// SPDX-License-Identifier: Apache-2.0
#include "memory/staging.hpp"

#include <algorithm>

#include "core/locks.hpp"
#include "memory/pinned.hpp"

namespace xhal {
namespace {

void free_slab(const StagingSlab& slab) {
  (void)free_pinned(reinterpret_cast<void*>(slab.base), "staging memory");
}

// Whether the hardware is known to have dropped what it had of a piece whose work has failed.
bool is_quiet(const Piece& piece, StreamState& present) {
  const auto is_gone = [](const StreamRef& s) { return s->ended.load(std::memory_order_acquire); };
  // A helper that has failed is destroyed before long, and never recovered.
  if (piece.helper != nullptr && !is_gone(piece.helper) &&
      !piece.helper->timeline.load()->reached(piece.helper_work.load()))
    return false;
  if (is_gone(piece.user)) return true;
  // The stream that submits now is one that nobody recovers at the same time, so it may be looked
  // at; others will be when they submit.
  return piece.user.get() == &present && !present.timeline.load()->failed();
}

}  // namespace

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::staging);
  return *locks;
}
static const AtLoad locks_at_load(locks);

std::mutex& Staging::lock() const noexcept { return locks().of(this); }

void Piece::drop() noexcept {
  if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) home->give_back(this);
}

void Staging::put(Piece* piece) {
  auto& c = classes_[piece->slab->size_class];
  c.free.push_back(piece);  // has room for all
  if (++piece->slab->free_pieces == c.per_slab) ++c.free_slabs;
}

// A slab that is wholly free while another one is, too.
std::unique_ptr<StagingSlab> Staging::surplus(uint32_t size_class) {
  auto& c = classes_[size_class];
  if (c.free_slabs < 2) return nullptr;
  const auto it = std::find_if(slabs_.begin(), slabs_.end(), [&](const auto& s) {
    return s->size_class == size_class && s->free_pieces == c.per_slab;
  });
  auto slab = std::move(*it);
  slabs_.erase(it);
  --c.free_slabs;
  std::erase_if(c.free, [&](const Piece* p) { return p->slab == slab.get(); });
  return slab;
}

void Staging::give_back(Piece* piece) noexcept {
  std::unique_ptr<StagingSlab> gone;
  bool last = false;
  {
    const std::lock_guard lock(this->lock());
    --out_;
    if (closed_) {
      last = out_ == 0;
    } else if (piece->unsafe.load(std::memory_order_relaxed)) {
      aside_.push_back(piece);
    } else {
      put(piece);
      gone = surplus(piece->slab->size_class);
    }
  }
  if (gone != nullptr) free_slab(*gone);
  if (!last) return;
  for (const auto& slab : slabs_) free_slab(*slab);
  delete this;
}

void Staging::collect(StreamState& user) {
  std::erase_if(aside_, [&](Piece* piece) {
    if (!is_quiet(*piece, user)) return false;
    put(piece);
    return true;
  });
}

xhal_status Staging::grow(uint32_t size_class, ContextState& context) {
  auto& c = classes_[size_class];
  void* memory = nullptr;
  if (const auto s = alloc_pinned(c.piece_bytes * c.per_slab, &memory, "xhal_stream_copy");
      s != XHAL_OK)
    return s;
  auto slab = std::make_unique<StagingSlab>();
  slab->size_class = size_class;
  slab->base = reinterpret_cast<uint64_t>(memory);
  slab->pieces = std::make_unique<Piece[]>(c.per_slab);
  uint64_t seen = slab->base;
  if (!context.device->has(XHAL_CAP_PAGEABLE_COPY)) {
    const auto block = *address_map().find(slab->base);
    if (const auto s = pinned_address(context, block, slab->base, &seen); s != XHAL_OK) {
      free_slab(*slab);
      return s;
    }
  }
  if (seen == 0) {
    free_slab(*slab);
    if (context.device->lost) return set_error(*context.device->lost_error);
    return fail(XHAL_ERR_UNSUPPORTED, "xhal_stream_copy",
                "xhal_stream_copy: {} takes neither unpinned nor pinned host memory",
                context.device->id());
  }
  for (uint32_t i = 0; i < c.per_slab; ++i) {
    auto& piece = slab->pieces[i];
    piece.home = this;
    piece.slab = slab.get();
    piece.host = static_cast<char*>(memory) + i * c.piece_bytes;
    piece.seen = seen + i * c.piece_bytes;
    piece.size = c.piece_bytes;
  }
  const std::lock_guard lock(this->lock());
  slabs_.reserve(slabs_.size() + 1);
  const auto slabs = std::count_if(slabs_.begin(), slabs_.end(),
                                   [&](const auto& s) { return s->size_class == size_class; }) +
                     1;
  c.free.reserve(static_cast<size_t>(slabs) * c.per_slab);
  aside_.reserve((slabs_.size() + 1) * classes_[0].per_slab);
  for (uint32_t i = 0; i < c.per_slab; ++i) put(&slab->pieces[i]);
  slabs_.push_back(std::move(slab));
  return XHAL_OK;
}

xhal_status Staging::take(uint64_t size, StreamState& user, StreamState* helper, Piece** piece) {
  uint32_t size_class = 0;
  while (size_class < 2 && classes_[size_class].piece_bytes < size) ++size_class;
  auto& c = classes_[size_class];
  for (;;) {
    {
      const std::lock_guard lock(this->lock());
      if (!aside_.empty()) collect(user);
      if (!c.free.empty()) {
        auto* p = c.free.back();
        c.free.pop_back();
        if (p->slab->free_pieces-- == c.per_slab) --c.free_slabs;
        ++out_;
        p->references.store(1, std::memory_order_relaxed);
        p->unsafe.store(false, std::memory_order_relaxed);
        p->user = &user;
        p->helper = helper;
        p->helper_work.store(UINT64_MAX);
        *piece = p;
        return XHAL_OK;
      }
    }
    if (const auto s = grow(size_class, *user.context); s != XHAL_OK) return s;
  }
}

void Staging::close(Staging* staging) noexcept {
  {
    const std::lock_guard lock(staging->lock());
    staging->closed_ = true;
    if (staging->out_ != 0) return;
  }
  for (const auto& slab : staging->slabs_) free_slab(*slab);
  delete staging;
}

}  // namespace xhal
