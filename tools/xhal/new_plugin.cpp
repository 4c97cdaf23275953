// new_plugin.cpp: `xhal plugins new`: the template plugin as a project of its own.
#include "xhal/command.hpp"

namespace xhal::tools {

Report new_plugin(const Options&) { throw Failure(kUsage, "this build has no template plugin to copy"); }

}  // namespace xhal::tools
