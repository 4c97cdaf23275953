// SPDX-License-Identifier: Apache-2.0
#include "transfer.hpp"

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

namespace xhal::cpu {
namespace {

constexpr uint64_t kSplitBytes = 512 << 10;  // below, one thread is as fast
constexpr uint64_t kBlockBytes = 128 << 10;  // smallest share of one thread
// From here on the data would only push other things out of the cache.
constexpr uint64_t kPastCacheBytes = 16 << 20;

// Stores that go around the cache. `dst` is aligned to 16, size a multiple of 64.
void stream_copy(char* dst, const char* src, uint64_t size) {
  for (uint64_t i = 0; i < size; i += 64) {
    _mm_prefetch(src + i + 1024, _MM_HINT_NTA);
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i + 16));
    const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i + 32));
    const __m128i d = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i + 48));
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i), a);
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i + 16), b);
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i + 32), c);
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i + 48), d);
  }
  _mm_sfence();
}

uint64_t until_aligned(const char* p, uint64_t alignment) {
  return (alignment - reinterpret_cast<uintptr_t>(p) % alignment) % alignment;
}

void copy_past_cache(char* dst, const char* src, uint64_t size) {
  const uint64_t head = std::min(size, until_aligned(dst, 64));
  std::memcpy(dst, src, head);
  const uint64_t body = (size - head) & ~uint64_t{63};
  stream_copy(dst + head, src + head, body);
  std::memcpy(dst + head + body, src + head + body, size - head - body);
}

// `word` repeats the pattern; `dst` is aligned to the pattern, so a word that starts at dst
// is right everywhere.
void fill_words(char* dst, uint64_t size, uint64_t word, bool past_cache) {
  uint64_t done = 0;
  const auto turned = [&] {  // the word as it continues after `done` bytes
    const unsigned shift = static_cast<unsigned>(done % 8) * 8;
    return shift == 0 ? word : word >> shift | word << (64 - shift);
  };
  const uint64_t head = std::min(size, until_aligned(dst, 16));
  std::memcpy(dst, &word, std::min<uint64_t>(head, 8));
  if (head > 8) std::memcpy(dst + 8, &word, head - 8);
  done = head;
  const __m128i wide = _mm_set1_epi64x(static_cast<long long>(turned()));
  for (; size - done >= 64; done += 64) {
    auto* to = reinterpret_cast<__m128i*>(dst + done);
    for (int i = 0; i < 4; ++i) {
      if (past_cache) {
        _mm_stream_si128(to + i, wide);
      } else {
        _mm_store_si128(to + i, wide);
      }
    }
  }
  if (past_cache) _mm_sfence();
  while (done < size) {
    const uint64_t next = turned();
    const uint64_t bytes = std::min<uint64_t>(size - done, 8);
    std::memcpy(dst + done, &next, bytes);
    done += bytes;
  }
}

uint64_t repeated(uint64_t pattern, uint32_t bytes) {
  switch (bytes) {
    case 1:
      return (pattern & 0xff) * 0x0101010101010101u;
    case 2:
      return (pattern & 0xffff) * 0x0001000100010001u;
    case 4:
      return (pattern & 0xffffffff) * 0x0000000100000001u;
    default:
      return pattern;
  }
}

template <class Body>
void in_blocks(WorkerPool& pool, uint64_t size, Body&& body) {
  if (size < kSplitBytes) return body(0, size);
  const auto blocks = static_cast<int64_t>((size + kBlockBytes - 1) / kBlockBytes);
  pool.parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    const uint64_t from = static_cast<uint64_t>(begin) * kBlockBytes;
    body(from, std::min(static_cast<uint64_t>(end) * kBlockBytes, size) - from);
  });
}

}  // namespace

void copy_memory(WorkerPool& pool, void* dst, const void* src, uint64_t size_bytes) {
  auto* to = static_cast<char*>(dst);
  const auto* from = static_cast<const char*>(src);
  const bool past_cache = size_bytes >= kPastCacheBytes;
  in_blocks(pool, size_bytes, [&](uint64_t begin, uint64_t size) {
    if (past_cache) {
      copy_past_cache(to + begin, from + begin, size);
    } else {
      std::memcpy(to + begin, from + begin, size);
    }
  });
}

void fill_memory(WorkerPool& pool, void* dst, uint64_t size_bytes, uint64_t pattern,
                 uint32_t pattern_bytes) {
  auto* to = static_cast<char*>(dst);
  const uint64_t word = repeated(pattern, pattern_bytes);
  const bool past_cache = size_bytes >= kPastCacheBytes;
  // memset decides by the size it is given, and here that is a block's.
  const bool by_memset = word == repeated(word, 1) && !past_cache;
  in_blocks(pool, size_bytes, [&](uint64_t begin, uint64_t size) {
    if (by_memset) {
      std::memset(to + begin, static_cast<int>(word & 0xff), size);
    } else {
      fill_words(to + begin, size, word, past_cache);
    }
  });
}

}  // namespace xhal::cpu
