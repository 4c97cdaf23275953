# SPDX-License-Identifier: Apache-2.0
"""`./dev` and the counting of its results, as a person meets them. Installs and builds nothing."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def dev(self, *arguments, root=ROOT, **variables):
        clean = {key: os.environ[key] for key in os.environ if not key.startswith("XHAL_")}
        return subprocess.run([root / "dev", *arguments], env={**clean, **variables}, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=240)


class Usage(Case):
    def test_help_teaches_every_subcommand(self):
        result = self.dev("--help")
        self.assertEqual(result.returncode, 0)
        for command in "demo build test run bench lint doctor clean".split():
            self.assertIn(f"./dev {command}", result.stdout)

    def test_an_unknown_word_is_wrong_usage_and_names_what_there_is(self):
        for words in ("tset", "test --al", "build --preset fast", "build --preset", "run"):
            result = self.dev(*words.split())
            self.assertEqual(result.returncode, 2, words)
            self.assertRegex(result.stderr, "^dev: ")
            self.assertEqual(result.stdout, "")

    def test_no_word_at_all_shows_the_help_and_is_wrong_usage(self):
        result = self.dev()
        self.assertEqual(result.returncode, 2)
        self.assertIn("./dev demo", result.stdout)


class PythonEnvironment(Case):
    """In a tree whose requirements.txt names nothing, so that an environment takes seconds."""

    def setUp(self):
        super().setUp()
        self.cache = self.folder / "cache"
        self.tree = self.folder / "tree"
        (self.tree / "build/dev").mkdir(parents=True)
        (self.tree / "build/dev/.built").touch()
        (self.tree / "requirements.txt").write_text("# nothing\n")
        shutil.copy(ROOT / "dev", self.tree)

    def run_in_tree(self, *command, **variables):
        return self.dev("run", *command, root=self.tree, XDG_CACHE_HOME=str(self.cache),
                        **variables)

    def environments(self):
        return [path for path in (self.cache / "xhal").glob("venv-*") if path.is_dir()]

    def test_run_has_the_environment_and_the_built_tools_in_place(self):
        result = self.run_in_tree("python", "-c", "import sys; print(sys.prefix)")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([result.stdout.strip()], [str(path) for path in self.environments()])
        result = self.run_in_tree("sh", "-c", "echo $PATH; echo $XHAL_PLUGIN_PATH")
        path, plugins = result.stdout.split()
        environment = self.environments()[0]
        self.assertTrue(path.startswith(f"{self.tree}/build/dev/bin:{environment}/bin:"))
        self.assertEqual(plugins, f"{self.tree}/build/dev/lib/xhal/plugins")

    def test_a_half_made_environment_is_made_anew(self):
        self.run_in_tree("true")
        environment = self.environments()[0]
        (environment / ".complete").unlink()
        (environment / "bin/python").unlink()
        result = self.run_in_tree("python", "-c", "print('whole')")
        self.assertEqual(result.stdout.strip(), "whole", result.stderr)
        self.assertTrue((environment / ".complete").exists())

    def test_a_whole_environment_is_used_as_it_is(self):
        self.run_in_tree("true")
        result = self.run_in_tree("true")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_xhal_python_without_torch_says_what_to_do(self):
        python = self.folder / "python"
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
        result = self.run_in_tree("true", XHAL_PYTHON=str(python))
        self.assertEqual(result.returncode, 2)
        self.assertIn("has no torch", result.stderr)
        self.assertIn("unset XHAL_PYTHON", result.stderr)

    def test_xhal_python_with_a_torch_that_is_too_old_names_both_versions(self):
        python = self.folder / "python"
        python.write_text("#!/bin/sh\necho 2.5.1\n")
        python.chmod(0o755)
        result = self.run_in_tree("true", XHAL_PYTHON=str(python))
        self.assertEqual(result.returncode, 2)
        self.assertIn("2.5.1", result.stderr)
        self.assertIn("2.6", result.stderr)


class Build(Case):
    """In a tree of its own whose cmake only says what it was asked for."""

    CMAKE = """#!/bin/sh
echo "$@" >>"$ASKED"
case $1 in
  --build)
    printf '[1/2 0.5] compiling one\\nwarning: look\\n[2/2 1.5] linking\\n'
    exit "${FAILS:-0}" ;;
  *) mkdir -p build/dev; touch build/dev/build.ninja ;;
esac
"""

    def setUp(self):
        super().setUp()
        self.tree, programs = self.folder / "tree", self.folder / "programs"
        self.asked = self.folder / "asked"
        (self.tree / "tools").mkdir(parents=True)
        programs.mkdir()
        shutil.copy(ROOT / "dev", self.tree)
        (self.tree / "tools/demo.py").write_text("")
        for name, text in {"cmake": self.CMAKE, "dpkg-query": DPKG_QUERY, "python": PYTHON}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.variables = {"PATH": f"{programs}:{os.environ['PATH']}", "ASKED": str(self.asked),
                          "XHAL_PYTHON": str(programs / "python")}

    def run_dev(self, *words, **variables):
        self.asked.write_text("")
        return self.dev(*words, root=self.tree, **self.variables, **variables)

    def targets(self):
        builds = [line for line in self.asked.read_text().splitlines() if "--build" in line]
        return [line.partition("--target ")[2] or "all" for line in builds]

    def test_the_demo_builds_only_what_it_runs_and_tells_its_time(self):
        result = self.run_dev("demo")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.targets(), ["demo"])
        self.assertRegex(result.stderr.splitlines()[-1], r"^== time: .*all \d+:\d\d min$")

    def test_after_the_demo_run_builds_the_rest_only_for_what_needs_it(self):
        self.run_dev("demo")
        self.assertEqual(self.run_dev("run", "python", "train.py").returncode, 0)
        self.assertEqual(self.targets(), [])
        self.assertEqual(self.run_dev("run", "true").returncode, 0)
        self.assertEqual(self.targets(), ["all"])
        self.assertEqual(self.run_dev("run", "true").returncode, 0)
        self.assertEqual(self.targets(), [])

    def test_a_build_says_how_far_it_is_and_hides_nothing_else(self):
        result = self.run_dev("build")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("[1/2] 0:00, about 0:00 left  compiling one", result.stderr)
        self.assertIn("warning: look", result.stderr)
        self.assertIn("[2/2] 0:01", result.stderr)

    def test_a_build_that_fails_is_not_taken_for_a_build(self):
        result = self.run_dev("build", FAILS="1")
        self.assertEqual(result.returncode, 1)
        self.assertIn("the build of preset dev failed", result.stderr)
        self.run_dev("run", "true")
        self.assertEqual(self.targets(), ["all"])


# Every Debian package is there; a python that has torch.
DPKG_QUERY = """#!/bin/sh
for word; do case $word in -*) ;; *) echo "$word installed" ;; esac; done
"""
PYTHON = """#!/bin/sh
case $1 in -c) echo 2.15.0 ;; esac
"""


class Counting(Case):
    PASSED = '<testcase name="a" status="run"/>'
    FAILED = '<testcase name="b.Fails" status="fail"><failure message=""/></testcase>'
    SKIPPED = ('<testcase name="c" status="notrun">'
               '<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/></testcase>')
    NOT_STARTED = ('<testcase name="d.Gone" status="notrun">'
                   '<skipped message="Unable to find executable"/></testcase>')

    def count(self, *cases, write=True):
        path = self.folder / "junit.xml"
        if write:
            path.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
        program = [sys.executable, "-B", ROOT / "cmake/count_tests.py", f"dev={path}"]
        result = subprocess.run(program, text=True, capture_output=True, timeout=60)
        return result.returncode, result.stdout.splitlines()

    def test_the_last_line_counts(self):
        code, lines = self.count(self.PASSED, self.PASSED, self.SKIPPED)
        self.assertEqual((code, lines), (0, ["2 passed, 0 failed, 1 skipped"]))

    def test_a_failure_is_named_and_fails(self):
        code, lines = self.count(self.PASSED, self.FAILED)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("  dev: b.Fails", lines)

    def test_a_test_that_could_not_be_started_is_a_failure(self):
        code, lines = self.count(self.PASSED, self.NOT_STARTED)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))

    def test_no_test_at_all_fails(self):
        self.assertEqual(self.count(), (1, ["no test ran", "0 passed, 0 failed, 0 skipped"]))
        self.assertEqual(self.count(self.SKIPPED)[0], 1)

    def test_missing_results_are_a_failure(self):
        code, lines = self.count(write=False)
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))


if __name__ == "__main__":
    unittest.main()
