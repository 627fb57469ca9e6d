# SPDX-License-Identifier: BSD-3-Clause
"""Shared by the tests in namespaces and those beside the original programs: --full, the lab on the path, the last line."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "netns"))


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also the long tests")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        long = [i for i in items if i.get_closest_marker("full")]
        config.hook.pytest_deselected(items=long)
        items[:] = [i for i in items if not i.get_closest_marker("full")]


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    stats = terminalreporter.stats
    passed, failed = len(stats.get("passed", [])), len(stats.get("failed", [])) + len(stats.get("error", []))
    skipped = len(stats.get("skipped", []))
    if os.environ.get("CI"):
        failed += skipped
    terminalreporter.write_line(f"{passed} passed, {failed} failed")
