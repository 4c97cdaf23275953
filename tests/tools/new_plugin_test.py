# SPDX-License-Identifier: Apache-2.0
"""`xhal plugins new`: the project it makes builds against the installed package only and passes the
core profile.

Usage: new_plugin_test.py BUILD_DIR
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()


def run(*command, expect=0, **variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XHAL_")}
    result = subprocess.run(
        command, env={**environment, **variables}, text=True, capture_output=True, timeout=300
    )
    if result.returncode != expect:
        raise AssertionError(
            f"{command}: exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
    return result


class NewPlugin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.prefix = cls.folder / "prefix"
        run("cmake", "--install", str(BUILD), "--prefix", str(cls.prefix))
        cls.xhal = str(cls.prefix / "bin/xhal")

    def make(self, name):
        project = self.folder / name
        run(self.xhal, "plugins", "new", name, "--dir", str(project))
        return project

    def build(self, project):
        run(
            "cmake",
            "-S",
            str(project),
            "-B",
            str(project / "build"),
            "-G",
            "Ninja",
            f"-DCMAKE_PREFIX_PATH={self.prefix}",
        )
        run("cmake", "--build", str(project / "build"))

    def test_the_project_builds_and_passes_the_core_profile(self):
        project = self.make("acme-npu")
        self.build(project)
        run("ctest", "--test-dir", str(project / "build"), "--output-on-failure")
        listed = run(
            self.xhal,
            "list",
            "--json",
            XHAL_PLUGIN_PATH=str(project / "build/plugins"),
            XHAL_PLUGIN_SELECT="acme-npu",
        )
        devices = json.loads(listed.stdout)["data"]["devices"]
        self.assertEqual([device["id"] for device in devices], ["acme-npu:0"])
        self.assertEqual(devices[0]["name"], "AcmeNpu device")

    def test_nothing_of_the_template_is_left_in_it(self):
        project = self.make("zz")
        for path in project.iterdir():
            text = path.read_text()
            # The word is a keyword of C++ where '<' follows; the README tells of nothing else.
            self.assertIsNone(re.search(r"template(?!\s*<)", text), path)
            self.assertNotIn("@NAME@", text, path)
        self.assertIn('"name": "zz"', (project / "zz.json").read_text())

    def test_the_vendor_is_no_longer_xhal(self):
        project = self.make("my-npu")
        self.assertIn('"vendor": "MyNpu"', (project / "my-npu.json").read_text())
        self.assertIn('info.vendor, "MyNpu"', (project / "my-npu.cpp").read_text())

    def test_a_name_that_another_plugin_has_is_refused(self):
        folder = self.folder / "others"
        folder.mkdir()
        (folder / "else.json").write_text('{"name": "rival"}')
        for name, whose in (("cpu", "cpu.json"), ("template", "xHAL"), ("rival", "else.json")):
            refused = run(
                self.xhal, "plugins", "new", name, expect=2, XHAL_PLUGIN_PATH=str(folder)
            )
            self.assertIn(whose, refused.stderr)

    def test_the_template_itself_is_not_installed_as_a_device(self):
        self.assertEqual(list(self.prefix.rglob("libxhal_template.so")), [])
        self.assertNotIn("template", run(self.xhal, "list", "--json").stdout)

    def test_a_folder_with_something_in_it_is_not_touched(self):
        project = self.folder / "taken"
        project.mkdir()
        (project / "precious").write_text("mine")
        refused = run(self.xhal, "plugins", "new", "taken", "--dir", str(project), expect=2)
        self.assertIn("--dir", refused.stderr)
        self.assertEqual([path.name for path in project.iterdir()], ["precious"])

    def test_a_name_that_cannot_be_one_is_refused_with_the_rule(self):
        for name in ("Acme", "9lives", "a b", "x" * 25):
            self.assertIn("a letter first", run(self.xhal, "plugins", "new", name, expect=2).stderr)

    def test_the_smi_name_works_too(self):
        run(str(self.prefix / "bin/xhal-smi"), "--version")


class FromTheBuildTree(unittest.TestCase):
    """What is printed as the next steps works word for word, with nothing installed."""

    def test_the_steps_that_are_printed_build_and_pass(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        project = pathlib.Path(folder.name) / "acme"
        made = run(str(BUILD / "bin/xhal"), "plugins", "new", "acme", "--dir", str(project))
        steps = made.stdout.split("next:\n")[1]
        self.assertIn(f"-DCMAKE_PREFIX_PATH={BUILD}", steps)
        done = run(
            "/bin/sh",
            "-e",
            "-c",
            steps,
            PATH=f"{BUILD / 'bin'}:{os.environ['PATH']}",
            CMAKE_GENERATOR="Ninja",
        )
        self.assertIn("acme:0", done.stdout)
        cache = (project / "build/CMakeCache.txt").read_text()
        self.assertIn(f"{BUILD}/bin/xhal-cts", cache)


if __name__ == "__main__":
    unittest.main()
