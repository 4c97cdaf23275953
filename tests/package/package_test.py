# SPDX-License-Identifier: Apache-2.0
"""The installed package, used as a stranger would: C11 through pkg-config, C++ through CMake.

Usage: package_test.py BUILD_DIR
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()

C_PROGRAM = """
#include <stdio.h>
#include <xhal/xhal.h>
int main(void) {
  printf("%u.%u", (unsigned)(xhal_version() >> 16), (unsigned)(xhal_version() & 0xffff));
  return 0;
}
"""

CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(stranger LANGUAGES C)
find_package(xhal 0.1 REQUIRED)
add_executable(program program.c)
target_link_libraries(program PRIVATE xhal::xhal)
file(WRITE ${CMAKE_BINARY_DIR}/plugin_dir "${xhal_PLUGIN_DIR}")
"""


def run(*command, **variables):
    environment = {**os.environ, **variables}
    result = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    if result.returncode:
        raise AssertionError(f"{command}: {result.stdout}\n{result.stderr}")
    return result.stdout


class InstalledPackage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        staged = cls.folder / "staged"
        run("cmake", "--install", str(BUILD), "--prefix", str(staged))
        # The package is used at another place than the one it was installed to.
        cls.prefix = staged.rename(cls.folder / "moved")
        cls.library = next(cls.prefix.glob("**/libxhal.so.0")).parent
        (cls.folder / "program.c").write_text(C_PROGRAM)
        (cls.folder / "CMakeLists.txt").write_text(CMAKE_PROJECT)

    def test_a_strict_c11_program_builds_through_pkg_config_and_runs(self):
        flags = run("pkg-config", "--cflags", "--libs", "xhal",
                    PKG_CONFIG_PATH=str(self.library / "pkgconfig")).split()
        program = self.folder / "c_program"
        run("cc", "-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror",
            str(self.folder / "program.c"), "-o", str(program), *flags)
        version = run(str(program), LD_LIBRARY_PATH=str(self.library))
        self.assertRegex(version, r"^\d+\.\d+$")

    def test_every_public_header_stands_alone_as_strict_c11_and_as_cxx20(self):
        include = self.prefix / "include"
        headers = sorted(path.relative_to(include) for path in include.rglob("*.h*"))
        self.assertGreater(len(headers), 10)
        for header in headers:
            line = f"#include <{header}>\n"
            source = self.folder / ("one.c" if header.suffix == ".h" else "one.cpp")
            source.write_text(line + line)
            standards = {".h": [("cc", "c", "c11"), ("c++", "c++", "c++20")],
                         ".hpp": [("c++", "c++", "c++20")]}[header.suffix]
            for compiler, language, standard in standards:
                run(compiler, "-x", language, f"-std={standard}", "-pedantic", "-Wall", "-Wextra",
                    "-Werror", f"-I{include}", "-fsyntax-only", str(source))

    def test_a_cmake_project_finds_the_targets_and_the_plugin_folder(self):
        build = self.folder / "build"
        run("cmake", "-S", str(self.folder), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", str(build))
        self.assertRegex(run(str(build / "program")), r"^\d+\.\d+$")
        plugins = pathlib.Path((build / "plugin_dir").read_text())
        self.assertEqual(plugins, self.library / "xhal/plugins")

    def test_an_installed_tool_finds_its_library_without_any_variable(self):
        tools = [path for path in (self.prefix / "bin").glob("xhal*") if not path.is_symlink()]
        self.assertTrue(tools)
        for tool in tools:
            missing = [line for line in run("ldd", str(tool)).splitlines() if "not found" in line]
            self.assertEqual(missing, [], tool.name)

    def test_the_plugins_are_where_the_library_looks_for_them(self):
        manifests = list((self.library / "xhal/plugins").glob("*.json"))
        self.assertTrue(manifests)
        for manifest in manifests:
            self.assertFalse(manifest.stat().st_mode & 0o022, f"{manifest} is writable by others")


if __name__ == "__main__":
    unittest.main()
