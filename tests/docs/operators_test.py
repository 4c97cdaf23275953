# SPDX-License-Identifier: Apache-2.0
"""The page of the operator catalogue cannot drift from ops.inc."""

import contextlib
import importlib.util
import io
import pathlib
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("operators", ROOT / "docs/operators.py")
operators = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(operators)

LIST = """/* xhal/ops.inc: the catalogue.
 *   XHAL_OP(name, ...)
 */
/* pointwise; an absent b is a scalar */
XHAL_OP(abs, 11, 1, "in:N", "out:N", "", "", "any", "out=in", yes, exact, "out", "io", "|in|")
"""


class OperatorsPage(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "docs").mkdir()
        self.list = self.root / "hal/include/xhal/ops.inc"
        self.list.parent.mkdir(parents=True)
        self.list.write_text(LIST)

    def run_script(self, *arguments):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = operators.main(["--root", str(self.root), *arguments])
        return status, output.getvalue()

    def test_a_page_that_was_just_written_is_current(self):
        self.assertEqual(self.run_script(), (0, ""))
        self.assertEqual(self.run_script("--check"), (0, ""))

    def test_an_operator_has_its_row_below_its_section(self):
        self.run_script()
        page = (self.root / "docs/operators.md").read_text()
        self.assertIn("## Pointwise\n\nAn absent b is a scalar.\n", page)
        self.assertIn("| 11 | **abs** | \\|in\\| | `in:N` -> `out:N` |", page)

    def test_a_change_of_the_list_makes_the_page_stale(self):
        self.run_script()
        self.list.write_text(LIST.replace('"|in|"', '"the magnitude"'))
        status, output = self.run_script("--check")
        self.assertEqual(status, 1)
        self.assertIn("run: python3 docs/operators.py", output)

    def test_an_entry_that_cannot_be_read_is_named_with_its_line(self):
        self.list.write_text(LIST + "XHAL_OP(broken, 12)\n")
        status, output = self.run_script("--check")
        self.assertEqual(status, 1)
        self.assertIn("ops.inc:6: want 14 fields", output)

    def test_the_page_of_this_tree_is_current(self):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            status = operators.main(["--check"])
        self.assertEqual((status, output.getvalue()), (0, ""))


if __name__ == "__main__":
    unittest.main()
