// recurrent.cpp
#include "op.hpp"

namespace xhal::cpu {

std::span<const OpEntry> recurrent_ops() { return {}; }

}  // namespace xhal::cpu
