// SPDX-License-Identifier: Apache-2.0
// xhal/op_attributes.hpp: the attributes of a request by the names the catalogue gives them, with
// its defaults where they are left out. Header only, C++20.
//
//   const catalogue::Attributes attributes(*info);
//   const double eps = attributes.real("eps");
#ifndef XHAL_OP_ATTRIBUTES_HPP
#define XHAL_OP_ATTRIBUTES_HPP

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "xhal/catalogue.hpp"

namespace xhal::catalogue {

// A view of a request that check() has accepted: valid as long as the request. A name that the
// catalogue does not have for the operator is a mistake of the program and throws std::logic_error.
class Attributes {
 public:
  explicit Attributes(const xhal_op_info& info) : info_(&info), op_(find(info.id)) {}

  bool has(std::string_view name) const {
    return op_ != nullptr && op_->attribute(name) != nullptr;
  }
  int64_t integer(std::string_view name) const {
    const xhal_attribute* given = nullptr;
    const Attribute& known = look_up(name, &given);
    return given == nullptr ? known.i : given->value.i;
  }
  double real(std::string_view name) const {
    const xhal_attribute* given = nullptr;
    const Attribute& known = look_up(name, &given);
    if (given == nullptr) return known.f;
    return given->kind == XHAL_ATTR_INT ? static_cast<double>(given->value.i) : given->value.f;
  }
  std::span<const int64_t> integers(std::string_view name) const {
    const xhal_attribute* given = nullptr;
    look_up(name, &given);
    if (given == nullptr) return {};
    return {given->value.ints, static_cast<size_t>(given->count)};
  }

 private:
  const Attribute& look_up(std::string_view name, const xhal_attribute** given) const {
    const Attribute* known = op_ == nullptr ? nullptr : op_->attribute(name);
    if (known == nullptr)
      throw std::logic_error("the catalogue gives operator " + std::to_string(info_->id) +
                             " no attribute " + std::string(name));
    const auto index = static_cast<uint32_t>(known - op_->attributes().data());
    for (uint32_t i = 0; i < info_->attribute_count; ++i)
      if (info_->attributes[i].index == index) *given = &info_->attributes[i];
    return *known;
  }

  const xhal_op_info* info_;
  const Operator* op_;
};

}  // namespace xhal::catalogue

#endif
