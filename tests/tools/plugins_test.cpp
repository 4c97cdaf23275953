// SPDX-License-Identifier: Apache-2.0
// `xhal plugins list` and `doctor` on everything that can be wrong with a plugin, and
// xhal-probe by itself.
#include <elf.h>
#include <sys/stat.h>

#include <fstream>

#include "tool_test.hpp"

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Plugins : public ToolTest {
 protected:
  // The checks of the plugin `name`, by their names.
  std::map<std::string, nlohmann::json> doctor(const std::string& name,
                                               const Variables& variables = {}) {
    const auto run = xhal({"plugins", "doctor", "--json"}, variables);
    code_ = run.code;
    const auto report = json_of(run.out);
    std::map<std::string, nlohmann::json> checks;
    for (const auto& plugin : report["data"]["plugins"]) {
      if (plugin["name"] != name ||
          plugin["manifest"].get<std::string>().find(folder_.string()) == std::string::npos)
        continue;
      for (const auto& check : plugin["checks"]) checks[check["name"]] = check;
    }
    EXPECT_FALSE(checks.empty()) << run.out;
    return checks;
  }
  // The one check that failed says `what`, and what to do.
  void expect_failure(const std::string& plugin, const std::string& check, const std::string& what,
                      const Variables& variables = {}) {
    auto checks = doctor(plugin, variables);
    EXPECT_EQ(checks[check]["verdict"], "failed") << nlohmann::json(checks).dump(2);
    EXPECT_THAT(checks[check]["text"].get<std::string>(), HasSubstr(what));
    EXPECT_TRUE(checks[check]["next"].is_string()) << "no advice";
    EXPECT_EQ(code_, 1);
  }
  void patch(const fs::path& file, std::streamoff at, char byte) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(at);
    stream.put(byte);
  }
  int code_ = -1;
};

TEST_F(Plugins, AGoodOnePassesEveryCheck) {
  add_plugin("fake");
  for (const auto& [name, check] : doctor("fake"))
    EXPECT_EQ(check["verdict"], "ok") << check.dump();
}

TEST_F(Plugins, ListTellsStateRangeAndDevices) {
  add_plugin("fake");
  const auto run = xhal({"plugins", "list", "--json"});
  const auto json = json_of(run.out);
  EXPECT_EQ(json["schema"], "xhal.plugins.list/1");
  const auto& plugin = json["data"]["plugins"][0];
  EXPECT_EQ(plugin["name"], "fake");
  EXPECT_EQ(plugin["state"], "loaded");
  EXPECT_EQ(plugin["abi_used"], "0.3");
  EXPECT_EQ(plugin["devices"], 1);
  EXPECT_EQ(plugin["build"], "fake 1.0");
}

TEST_F(Plugins, ListNamesTheReasonOfASkippedOne) {
  add_file("fake.json", "{");
  const auto run = xhal({"plugins", "list"});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.out, HasSubstr("fake skipped: "));
  EXPECT_THAT(run.out, HasSubstr("xhal plugins doctor"));
}

TEST_F(Plugins, OneThatIsLeftOutIsNoFinding) {
  add_plugin("fake");
  const auto run = xhal({"plugins", "list"}, {{"XHAL_PLUGIN_DISABLE", "fake"}});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.out, HasSubstr("disabled"));
}

TEST_F(Plugins, ATruncatedManifestIsNamed) {
  add_file("fake.json", R"({"file_format_version": 1, "name": "fake", )");
  expect_failure("fake", "manifest", "not valid JSON");
}

TEST_F(Plugins, AManifestWithoutALibraryIsNamed) {
  add_file("fake.json", R"({"file_format_version": 1, "name": "fake"})");
  expect_failure("fake", "manifest", "library_path");
}

TEST_F(Plugins, AManifestOfAnotherFormatIsNamed) {
  add_plugin("fake", {}, {{"file_format_version", 9}});
  expect_failure("fake", "manifest", "file_format_version 9");
}

TEST_F(Plugins, AManifestOfAnotherAbiIsNamedWithBothRanges) {
  add_plugin("fake", {}, {{"abi", {{"min", "7.0"}, {"max", "7.2"}}}});
  expect_failure("fake", "manifest", "7.0-7.2, this xHAL speaks 0.1-0.3");
}

TEST_F(Plugins, AMissingLibraryIsNamed) {
  add_plugin("fake", folder_ / "libgone.so");
  expect_failure("fake", "permissions", "libgone.so");
}

TEST_F(Plugins, AWorldWritableLibraryIsNamedWithTheCommandThatHelps) {
  add_plugin("fake");
  fs::permissions(folder_ / "libfake.so", fs::perms::others_write, fs::perm_options::add);
  expect_failure("fake", "permissions", "writable by others");
}

TEST_F(Plugins, AWorldWritableManifestIsNamedAndNothingIsSaidOfWhatWasNotRead) {
  const auto manifest = add_plugin("fake");
  fs::permissions(manifest, fs::perms::others_write, fs::perm_options::add);
  expect_failure("fake", "permissions", "fake.json is writable by others");
  auto checks = doctor("fake");
  EXPECT_EQ(checks["permissions"]["next"], "run: chmod o-w " + manifest.string());
  for (const auto& [name, check] : checks) {
    if (name != "permissions") {
      EXPECT_EQ(check["verdict"], "skipped") << check.dump();
    }
  }
}

TEST_F(Plugins, WhatTheUsersVariablesHideIsAWarningThatNamesThem) {
  add_plugin("fake");
  const struct {
    Variables variables;
    std::string check, verdict, said;
  } cases[] = {
      {{{"XHAL_VISIBLE_DEVICES", ""}}, "visible", "warning", "XHAL_VISIBLE_DEVICES (empty)"},
      {{{"XHAL_VISIBLE_DEVICES", "fake"}}, "visible", "ok", "shows fake:0"},
      {{{"XHAL_VISIBLE_DEVICES", "fake:9"}}, "visible", "failed", "is not a device of fake"},
      {{{"XHAL_PLUGIN_DISABLE", "*"}}, "together", "warning", "XHAL_PLUGIN_DISABLE=*"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.said);
    const auto run = xhal({"plugins", "doctor", "--json"}, c.variables);
    const auto json = json_of(run.out);
    EXPECT_EQ(run.code, c.verdict == "failed" ? 1 : 0);
    const auto& check = json["data"]["library"].back();
    EXPECT_EQ(check["name"], c.check);
    EXPECT_EQ(check["verdict"], c.verdict);
    EXPECT_THAT(check["text"], HasSubstr(c.said));
    if (c.verdict == "warning") {
      EXPECT_THAT(json["warnings"].dump(), HasSubstr(c.said));
      EXPECT_THAT(xhal({"plugins", "doctor"}, c.variables).out, HasSubstr(c.said));
    }
  }
}

TEST_F(Plugins, ALibraryForAnotherMachineIsNamed) {
  add_plugin("fake");
  patch(folder_ / "libfake.so", offsetof(Elf64_Ehdr, e_machine), static_cast<char>(EM_PPC64));
  expect_failure("fake", "library", "ppc64");
}

TEST_F(Plugins, A32BitLibraryIsNamed) {
  add_plugin("fake");
  patch(folder_ / "libfake.so", EI_CLASS, ELFCLASS32);
  expect_failure("fake", "library", "32-bit");
}

TEST_F(Plugins, ATruncatedLibraryIsNamed) {
  add_plugin("fake");
  fs::resize_file(folder_ / "libfake.so", 5000);
  expect_failure("fake", "library", "truncated");
}

TEST_F(Plugins, WhatIsNoLibraryAtAllIsNamed) {
  add_plugin("fake", add_file("libfake.so", "not a library"));
  expect_failure("fake", "library", "not an ELF library");
}

TEST_F(Plugins, ALibraryThatIsNoPluginIsNamed) {
  fs::copy_file(XHAL_NO_PLUGIN, folder_ / "libfake.so");
  add_plugin("fake", folder_ / "libfake.so");
  expect_failure("fake", "symbols", "xhal_plugin_negotiate");
}

TEST_F(Plugins, AMissingLibraryOfALibraryIsNamed) {
  fs::copy_file(XHAL_NEEDS_MISSING, folder_ / "libfake.so");
  add_plugin("fake", folder_ / "libfake.so");
  expect_failure("fake", "load", "libxhal_missing.so");
  // In the loader's words, whole, and not in those of the library that calls it.
  EXPECT_THAT(doctor("fake")["load"]["text"].get<std::string>(),
              testing::AllOf(testing::EndsWith("No such file or directory"),
                             testing::Not(HasSubstr("boost"))));
}

TEST_F(Plugins, OneThatCrashesOnLoadingIsALineOfTheReport) {
  add_plugin("fake");
  expect_failure("fake", "load", "crashed", {{"XHAL_TEST_FAKE", "crash"}});
}

TEST_F(Plugins, OneThatSpeaksAnotherMajorIsNamedWithBothRanges) {
  add_plugin("fake");
  expect_failure("fake", "negotiation", "7.0-7.0", {{"XHAL_TEST_FAKE", "old"}});
}

TEST_F(Plugins, OneThatRefusesIsNamed) {
  add_plugin("fake");
  expect_failure("fake", "negotiation", "refused", {{"XHAL_TEST_FAKE", "refuse"}});
}

TEST_F(Plugins, OneWithoutDevicesIsAWarning) {
  add_plugin("fake");
  auto checks = doctor("fake", {{"XHAL_TEST_FAKE", "none"}});
  EXPECT_EQ(checks["devices"]["verdict"], "warning");
}

TEST_F(Plugins, TwoOfOneNameAreNamed) {
  add_plugin("fake");
  const auto second = add_plugin("fake_too", folder_ / "libfake.so", {{"name", "fake"}});
  const auto run = xhal({"plugins", "doctor"});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.out, HasSubstr("the name \"fake\" is taken by"));
}

TEST_F(Plugins, WhatIsNotForThisMachineIsLeftOutAsTheLoaderLeavesItOut) {
  const struct {
    nlohmann::json changes;
    std::string said;
  } cases[] = {{{{"match", {"path:/no/such/hardware"}}}, "the hardware is not present"},
               {{{"match", {"usb:1234"}}}, "\"usb:1234\" never holds"},
               {{{"match", {"pci:ffff:ffff"}}}, "the hardware is not present"},
               {{{"library_arch", "riscv"}}, "for riscv, this machine is"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.said);
    add_plugin("fake", folder_ / "no_need_for_it.so", c.changes);
    auto checks = doctor("fake");
    EXPECT_EQ(checks["machine"]["verdict"], "skipped");
    EXPECT_THAT(checks["machine"]["text"].get<std::string>(), HasSubstr(c.said));
    EXPECT_EQ(code_, 0) << "it is meant for another machine: no finding";
  }
}

// Whatever is wrong: the plugins doctor calls usable are those that libxhal loads.
TEST_F(Plugins, DoctorAndLoaderAgree) {
  add_plugin("fake");
  const auto library = folder_ / "libfake.so";
  add_plugin("fake_absent", library, {{"match", {"path:/no/such/hardware"}}});
  add_plugin("fake_foreign", library, {{"library_arch", "riscv"}});
  add_plugin("fake_kind", library, {{"match", {"usb:1"}}});
  add_plugin("fake_key", library, {{"prioritty", 3}});
  add_plugin("fake_twice", library, {{"name", "fake"}});
  add_plugin("fake_gone", folder_ / "nowhere.so");
  add_plugin("fake_open", library);
  fs::permissions(folder_ / "fake_open.json", fs::perms::others_write, fs::perm_options::add);
  add_plugin("fake_abort");
  add_file("fake_bad.json", "{");
  const Variables bad = {{"XHAL_TEST_FAKE", "fake_abort:abort"}};
  const auto doctors = json_of(xhal({"plugins", "doctor", "--json"}, bad).out);
  const auto loaders = json_of(xhal({"plugins", "list", "--json"}, bad).out);
  std::map<std::string, bool> usable, loaded;
  for (const auto& p : doctors["data"]["plugins"]) usable[p["manifest"]] = p["usable"];
  for (const auto& p : loaders["data"]["plugins"]) loaded[p["manifest"]] = p["state"] == "loaded";
  EXPECT_EQ(usable, loaded);
  EXPECT_TRUE(loaded[(folder_ / "fake.json").string()]);
  EXPECT_TRUE(loaded[(folder_ / "fake_key.json").string()]);
  EXPECT_THAT(doctors["data"]["library"][0]["text"], HasSubstr("loads 2 of them"));
}

TEST_F(Plugins, AnUnknownKeyIsNamedWithTheOneThatWasMeant) {
  add_plugin("fake", {}, {{"prioritty", 7}});
  auto checks = doctor("fake");
  EXPECT_EQ(checks["manifest"]["verdict"], "warning");
  EXPECT_THAT(checks["manifest"]["text"], HasSubstr("did you mean \"priority\"?"));
  EXPECT_EQ(code_, 0);
}

TEST_F(Plugins, OneLeftOutByTheUserIsNeitherUsableNorAFinding) {
  add_plugin("fake");
  auto checks = doctor("fake", {{"XHAL_PLUGIN_DISABLE", "fake"}});
  EXPECT_EQ(checks["selection"]["verdict"], "skipped");
  EXPECT_EQ(checks["selection"]["text"], "left out by XHAL_PLUGIN_DISABLE=fake");
  EXPECT_EQ(code_, 0);
}

TEST_F(Plugins, ADeviceThatDoesNotOpenIsNamed) {
  add_plugin("fake");
  expect_failure("fake", "open", "fake:2: the driver of this device does not answer",
                 {{"XHAL_TEST_FAKE", "mixed"}});
}

// Files that would be waited for, or read for ever.
TEST_F(Plugins, WhatIsNoRegularFileIsNamed) {
  add_plugin("fake_good");
  ASSERT_EQ(mkfifo((folder_ / "fake_pipe.json").c_str(), 0644), 0);
  fs::create_symlink("/dev/zero", folder_ / "fake_zero.json");
  fs::create_symlink("fake_loop.json", folder_ / "fake_loop.json");
  ASSERT_EQ(mkfifo((folder_ / "pipe.so").c_str(), 0644), 0);
  add_plugin("fake_library", folder_ / "pipe.so");
  for (const auto& words : {Words{"plugins", "doctor"}, Words{"plugins", "list"}}) {
    const auto run = xhal(words);
    EXPECT_EQ(run.code, 1) << run.err;
    EXPECT_THAT(run.out, HasSubstr("fake_pipe.json is not a regular file"));
    EXPECT_THAT(run.out, HasSubstr("pipe.so is not a regular file"));
    EXPECT_THAT(run.out, HasSubstr("symbolic links"));
    EXPECT_THAT(run.out, HasSubstr("/dev/zero"));
  }
  EXPECT_THAT(xhal({"list"}).out, HasSubstr("fake_good:0"));
}

TEST_F(Plugins, DoctorShowsEveryFolderItSearched) {
  const auto run = xhal({"plugins", "doctor"});
  EXPECT_THAT(run.out, HasSubstr(folder_.string()));
  EXPECT_THAT(run.out, HasSubstr("/etc/xhal/plugins.d"));
  EXPECT_THAT(run.out, HasSubstr("beside libxhal"));
}

TEST_F(Plugins, OneBadPluginTakesNoOtherDown) {
  add_plugin("fake");
  add_file("fake_bad.json", "{");
  const auto run = xhal({"list"});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.out, HasSubstr("fake:0"));
}

class Probe : public ToolTest {
 protected:
  nlohmann::json verdict(const Words& words, int code, const Variables& variables = {}) {
    const auto run = probe(words, variables);
    EXPECT_EQ(run.code, code) << run.err;
    return json_of(run.out);
  }
};

TEST_F(Probe, TellsWhatItFound) {
  const auto json = verdict({XHAL_FAKE_PLUGIN}, 0);
  EXPECT_EQ(json["schema"], "xhal.probe/1");
  EXPECT_EQ(json["verdict"], "ok");
  EXPECT_EQ(json["build"], "fake 1.0");
  EXPECT_EQ(json["devices"], 1);
  EXPECT_THAT(json["missing_slots"], testing::Contains("op_prepare"));
  EXPECT_THAT(json["maps"], testing::Contains(HasSubstr("libc.so")));
}

TEST_F(Probe, SaysWhyItIsNotUsable) {
  EXPECT_EQ(verdict({XHAL_FAKE_PLUGIN}, 1, {{"XHAL_TEST_FAKE", "old"}})["verdict"], "version");
  EXPECT_EQ(verdict({XHAL_FAKE_PLUGIN}, 1, {{"XHAL_TEST_FAKE", "refuse"}})["verdict"], "refused");
  EXPECT_EQ(verdict({XHAL_NO_PLUGIN}, 1)["verdict"], "no_entry");
  EXPECT_EQ(verdict({"/no/such/library.so"}, 1)["verdict"], "cannot_load");
  EXPECT_EQ(verdict({"--abi", "7.0-8.0", XHAL_FAKE_PLUGIN}, 1)["verdict"], "version");
}

TEST_F(Probe, ACrashIsACrash) {
  const auto run = probe({XHAL_FAKE_PLUGIN}, {{"XHAL_TEST_FAKE", "crash"}});
  EXPECT_EQ(run.end, ProcessResult::End::signalled);
}

TEST_F(Probe, WrongUsageTeaches) {
  EXPECT_EQ(probe({}).code, 2);
  EXPECT_EQ(probe({"--abi", "x", "y"}).code, 2);
  EXPECT_THAT(probe({"a", "b"}).err, HasSubstr("usage:"));
}

}  // namespace
}  // namespace xhal::tools
