// conv.cpp
#include "op.hpp"

namespace xhal::cpu {

std::span<const OpEntry> conv_ops() { return {}; }

}  // namespace xhal::cpu
