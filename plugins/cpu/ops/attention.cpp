// attention.cpp
#include "op.hpp"

namespace xhal::cpu {

std::span<const OpEntry> attention_ops() { return {}; }

}  // namespace xhal::cpu
