// SPDX-License-Identifier: Apache-2.0
#include "module.hpp"

#include <elf.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "command.hpp"
#include "device.hpp"
#include "module_symbols.hpp"

namespace xhal::cpu {
namespace {

using plugin::Error;

constexpr uint16_t kMachine = EM_X86_64;

// The bytes as a file that the dynamic linker can open.
class LibraryFile {
 public:
  LibraryFile(const std::string& name, const std::vector<char>& bytes) {
    fd_ = memfd_create(("xhal-" + name.substr(0, 200)).c_str(), MFD_CLOEXEC);
    if (fd_ < 0) throw Error(XHAL_ERR_OUT_OF_MEMORY, "no descriptor left: raise `ulimit -n`");
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::write(fd_, bytes.data() + done, bytes.size() - done);
      if (n <= 0) {
        ::close(fd_);
        throw Error(XHAL_ERR_OUT_OF_MEMORY, "no memory for the module's file");
      }
      done += static_cast<size_t>(n);
    }
  }
  ~LibraryFile() { ::close(fd_); }
  LibraryFile(const LibraryFile&) = delete;
  LibraryFile& operator=(const LibraryFile&) = delete;

  // Spelled differently every time: the dynamic linker takes a path it has seen before for the
  // library it has loaded from there, whatever the descriptor is now. The spelling is a number,
  // written with "./" for one and "/" for zero.
  std::string path() const {
    static std::atomic<uint64_t> number{0};
    std::string text = "/proc/self/fd/";
    for (uint64_t n = number.fetch_add(1); n != 0; n >>= 1) text += (n & 1) != 0 ? "./" : "/";
    return text + std::to_string(fd_);
  }

 private:
  int fd_ = -1;
};

void check_header(const std::vector<char>& bytes) {
  Elf64_Ehdr header{};
  if (bytes.size() < sizeof header)
    throw Error(XHAL_ERR_CORRUPT, "the module is too short for an ELF file");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) {
    throw Error(XHAL_ERR_CORRUPT, "the module is not a 64-bit ELF file");
  }
  if (header.e_machine != kMachine || header.e_type != ET_DYN) {
    throw Error(
        XHAL_ERR_CORRUPT,
        "the module is not a shared object for this machine (x86_64); build it with -shared -fPIC");
  }
}

}  // namespace

class LoadedModule {
 public:
  LoadedModule(std::string name, std::vector<char> bytes)
      : name_(std::move(name)), bytes_(std::move(bytes)) {
    check_header(bytes_);
    auto entries = exported_functions(bytes_);
    if (!entries) {
      throw Error(
          XHAL_ERR_CORRUPT,
          fmt::format("module `{}` is truncated or damaged: its tables lie beyond the end of "
                      "its {} bytes",
                      name_, bytes_.size()));
    }
    entries_ = std::move(*entries);
    const LibraryFile file(name_, bytes_);
    const std::string path = file.path();
    try {
      // The throwing form keeps what the dynamic linker says.
      library_ = boost::dll::shared_library(
          path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    } catch (const std::exception& e) {
      throw Error(XHAL_ERR_CORRUPT,
                  fmt::format("module `{}` cannot be loaded: {}", name_, e.what()));
    }
  }

  const std::string& name() const { return name_; }
  const std::vector<char>& bytes() const { return bytes_; }

  // Kernels stay where they are once found.
  const Kernel& find(const std::string& entry) {
    const auto known = kernels_.find(entry);
    if (known != kernels_.end()) return known->second;
    if (std::find(entries_.begin(), entries_.end(), entry) == entries_.end() ||
        !library_.has(entry)) {
      std::string there;
      for (const auto& kernel : entries_) there.append(there.empty() ? "" : ", ").append(kernel);
      throw Error(XHAL_ERR_NOT_FOUND,
                  fmt::format("module `{}` has no kernel `{}`; it has: {}", name_, entry, there));
    }
    Kernel kernel;
    kernel.function = &library_.get<void(const uint64_t*, const uint32_t*, const uint32_t*)>(entry);
    kernel.name = entry;
    return kernels_.emplace(entry, std::move(kernel)).first->second;
  }

 private:
  const std::string name_;
  const std::vector<char> bytes_;
  std::vector<std::string> entries_;
  boost::dll::shared_library library_;
  std::map<std::string, Kernel> kernels_;
};

xhal_status KernelHandle::query(xhal_kernel_properties* properties) {
  if (properties == nullptr)
    throw Error(XHAL_ERR_INVALID_ARGUMENT, "the properties pointer is NULL");
  properties->argument_count = UINT32_MAX;  // an ELF symbol does not tell
  return XHAL_OK;
}

void ModuleNames::claim(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (!names_.insert(name).second) {
    throw Error(XHAL_ERR_BUSY,
                fmt::format("the context has a module `{}` already; names are unique", name));
  }
}

void ModuleNames::release(const std::string& name) {
  const std::lock_guard lock(mutex_);
  names_.erase(name);
}

ModuleHandle::ModuleHandle(Device& d, std::shared_ptr<ModuleNames> n,
                           std::shared_ptr<LoadedModule> m)
    : device(d), names(std::move(n)), module(std::move(m)) {}

ModuleHandle::~ModuleHandle() {
  for (auto& [name, kernel] : kernels) plugin::destroy(kernel);
}

xhal_status ModuleHandle::destroy() {
  names->release(module->name());
  device.disown(this);
  device.retire(module);
  return plugin::destroy(this);
}

void ModuleHandle::let_go() {
  const std::lock_guard lock(mutex);
  for (auto& [name, kernel] : kernels) kernel->module.reset();
  module.reset();
}

xhal_status ModuleHandle::query(uint32_t what, void* data, uint64_t capacity,
                                uint64_t* size_bytes) {
  if (size_bytes == nullptr || (data == nullptr && capacity != 0)) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT, "a pointer is NULL");
  }
  switch (what) {
    case XHAL_MODULE_LOG:
      *size_bytes = 0;
      break;  // nothing was compiled
    case XHAL_MODULE_BINARY:
      *size_bytes = module->bytes().size();
      if (data != nullptr)
        std::memcpy(data, module->bytes().data(),
                    std::min<uint64_t>(capacity, module->bytes().size()));
      break;
    default:
      throw Error(XHAL_ERR_INVALID_ARGUMENT, fmt::format("{} is no XHAL_MODULE_ value", what));
  }
  return XHAL_OK;
}

xhal_status ModuleHandle::kernel(xhal_string name, xhal_kernel** result) {
  if (result == nullptr) throw Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  const std::string entry(plugin::view(name));
  const std::lock_guard lock(mutex);
  if (const auto known = kernels.find(entry); known != kernels.end()) {
    *result = plugin::to_handle<xhal_kernel>(known->second);
    return XHAL_OK;
  }
  const Kernel& found = module->find(entry);
  kernels[entry] =
      plugin::make<KernelHandle>(device.table(), XHAL_KIND_KERNEL, result, module, found);
  return XHAL_OK;
}

void load_module(Device& device, std::shared_ptr<ModuleNames> names, const xhal_module_info& info,
                 xhal_module** handle) {
  if (plugin::view(info.format) != "elf-so") {
    throw Error(XHAL_ERR_UNSUPPORTED,
                fmt::format("the cpu plugin loads modules of format `elf-so`, not `{}`",
                            plugin::view(info.format)));
  }
  if (info.bytes == nullptr || info.size_bytes == 0)
    throw Error(XHAL_ERR_INVALID_ARGUMENT, "the module has no bytes");
  const auto* bytes = static_cast<const char*>(info.bytes);
  std::string name(plugin::view(info.name));
  names->claim(name);
  try {
    auto loaded =
        std::make_shared<LoadedModule>(name, std::vector<char>(bytes, bytes + info.size_bytes));
    auto* made = plugin::make<ModuleHandle>(device.table(), XHAL_KIND_MODULE, handle, device, names,
                                            std::move(loaded));
    device.own(made);
  } catch (...) {
    names->release(name);
    throw;
  }
}

void run_kernel(WorkerPool& pool, KernelCommand& command) {
  const uint32_t* groups = command.groups;
  const auto total = static_cast<int64_t>(groups[0]) * groups[1] * groups[2];
  pool.parallel_for(total, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> own;  // the words of this thread, with its own scratch in them
    std::vector<char> scratch;
    const uint64_t* words = command.arguments();
    if (command.local_bytes != 0) {
      own.assign(words, words + command.argument_count);
      scratch.resize(command.local_bytes + 64);
      const uint64_t base = (reinterpret_cast<uint64_t>(scratch.data()) + 63) & ~uint64_t{63};
      for (uint32_t i = 0; i < command.argument_count; ++i) {
        if (command.kinds()[i] == XHAL_ARG_LOCAL) own[i] += base;
      }
      words = own.data();
    }
    for (int64_t i = begin; i < end; ++i) {
      const auto n = static_cast<uint64_t>(i);
      const uint32_t group[3] = {static_cast<uint32_t>(n % groups[0]),
                                 static_cast<uint32_t>(n / groups[0] % groups[1]),
                                 static_cast<uint32_t>(n / groups[0] / groups[1])};
      command.kernel->function(words, group, groups);
    }
  });
}

}  // namespace xhal::cpu
