# SPDX-License-Identifier: Apache-2.0
"""The page of environment variables cannot drift from the sources: each kind of drift is found."""

import importlib.util
import pathlib
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("environment", ROOT / "docs/environment.py")
environment = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(environment)


class EnvironmentPage(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("hal/include/xhal/init.h", "/* reads XHAL_LOG */ enum { XHAL_LOG_WARN = 1 };")
        self.write("hal/src/log.cpp", 'auto v = getenv("XHAL_LOG"); auto name = "XHAL_LOG_WARN";')
        self.write("docs/environment.tsv", "XHAL_LOG\twarn\tlibxhal\tLevel of the log.\n")
        environment.main(["--root", str(self.root)])

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def differences(self):
        return list(environment.differences(self.root))

    def test_a_true_page_has_no_difference(self):
        self.assertEqual(self.differences(), [])

    def test_a_variable_that_is_read_but_not_documented_is_named_with_its_place(self):
        self.write("hal/src/probe.cpp", '\nconst auto probe = env.get("XHAL_PROBE");')
        self.assertEqual(len(self.differences()), 1)
        self.assertTrue(self.differences()[0].startswith("hal/src/probe.cpp:2: reads XHAL_PROBE"))

    def test_a_second_reader_must_be_documented_too(self):
        self.write("frameworks/torch/device.py", "os.environ.get('XHAL_LOG')")
        self.assertIn("read by 'PyTorch device'", self.differences()[0])

    def test_a_variable_of_a_shell_script_counts(self):
        self.write("dev", 'test -n "${XHAL_PYTHON:-}"')
        self.assertIn("dev:1: reads XHAL_PYTHON", self.differences()[0])

    def test_setting_a_variable_for_another_program_is_not_reading_it(self):
        self.write("tools/demo.py", "e['XHAL_X'] = '1'\ne = {'XHAL_Y': '2'}\n")
        self.write("tools/run.cpp", 'setenv("XHAL_Z", "1", 1);')
        self.assertEqual(self.differences(), [])

    def test_a_documented_variable_that_nothing_reads_is_named(self):
        self.write("hal/src/log.cpp", "// nothing")
        self.assertIn("XHAL_LOG: nothing under hal/ reads it", self.differences()[0])

    def test_a_page_older_than_the_table_is_found(self):
        self.write("docs/environment.tsv", "XHAL_LOG\tinfo\tlibxhal\tLevel of the log.\n")
        self.assertIn("run: python3 docs/environment.py", self.differences()[0])

    def test_the_reader_in_the_torch_device_is_the_one_of_the_tree(self):
        ours = (ROOT / "hal/base/xhal_base/environment.hpp").read_text()
        copy = (ROOT / "frameworks/torch/csrc/environment.h").read_text()
        self.assertEqual(ours, copy, "cp hal/base/xhal_base/environment.hpp "
                                     "frameworks/torch/csrc/environment.h")

    def test_the_page_of_this_tree_is_true(self):
        self.assertEqual(list(environment.differences(ROOT)), [])


if __name__ == "__main__":
    unittest.main()
