# SPDX-License-Identifier: Apache-2.0
"""Counts the results of several ctest runs and prints them as one line.

Usage: count_tests.py LABEL=junit.xml...

ctest writes `notrun` for a test that asked to be skipped and for one that could not be started;
only the first is a skip here. A results file that is missing or cannot be read is a failure. Exit
status 1 on any failure, or when nothing ran at all.
"""

import sys
import xml.etree.ElementTree as ElementTree

ASKED_TO_SKIP = ("SKIP_RETURN_CODE", "SKIP_REGULAR_EXPRESSION_MATCHED", "Disabled")


def verdict(case):
    skipped = case.find("skipped")
    if case.get("status") == "run":
        return "passed"
    if case.get("status") == "disabled":
        return "skipped"
    if skipped is not None and (skipped.get("message") or "").startswith(ASKED_TO_SKIP):
        return "skipped"
    return "failed"


def main(runs):
    count = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    for run in runs:
        label, path = run.split("=", 1)
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            count["failed"] += 1
            failures.append(f"{label}: ctest left no results ({error})")
            continue
        for case in cases:
            result = verdict(case)
            count[result] += 1
            if result == "failed":
                failures.append(f"{label}: {case.get('name')}")

    if failures:
        print("failed; one alone: ./dev test [--preset P] -R NAME")
        for failure in failures:
            print(f"  {failure}")
    if not count["passed"] and not count["failed"]:
        print("no test ran")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**count), flush=True)
    return 0 if count["passed"] and not count["failed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
