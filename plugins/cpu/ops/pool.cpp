// pool.cpp
#include "op.hpp"

namespace xhal::cpu {

std::span<const OpEntry> pool_ops() { return {}; }

}  // namespace xhal::cpu
