// SPDX-License-Identifier: Apache-2.0
// format.cpp: fmt's implementation, compiled once for everything in this tree (the target
// xhal_fmt). Debian's package has it as a shared library, which a library that others load must
// not pull in, and in every object of who includes it (FMT_HEADER_ONLY), which costs six
// seconds an object.
#include <fmt/format-inl.h>

// What fmt's headers declare as compiled elsewhere, the same list as in fmt's own src/format.cc.
FMT_BEGIN_NAMESPACE
namespace detail {

template FMT_API auto dragonbox::to_decimal(float x) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double x) noexcept -> dragonbox::decimal_fp<double>;

template FMT_API locale_ref::locale_ref(const std::locale& locale);
template FMT_API auto locale_ref::get<std::locale>() const -> std::locale;

template FMT_API auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API void buffer<char>::append(const char*, const char*);
#if FMT_VERSION < 110000  // later ones have it as a plain function
template FMT_API void vformat_to(buffer<char>&, string_view,
                                 basic_format_args<FMT_BUFFER_CONTEXT(char)>, locale_ref);
#endif

}  // namespace detail
FMT_END_NAMESPACE
