# SPDX-License-Identifier: BSD-3-Clause
"""The long tier beside the originals: rekeys under load in each role, restarts of either side, the first packet after up."""
import contextlib
import subprocess

import pytest
from endurance import Transfer, first_contact, restart_gaps
from lab import ORIGINAL, OURS, Lab, wait_for

pytestmark = pytest.mark.full


@contextlib.contextmanager
def mixed(name, laptop, router):
    with Lab(name) as lab:
        lab.home_and_office()
        lab.derper(ORIGINAL / "derper")
        lab.testcontrol()
        lab.page()
        lab.laptop, lab.router = lab.node("laptop", laptop).start(), lab.node("router", router).start()
        lab.router.join("--advertise-routes=192.168.50.0/24")
        lab.laptop.join("--accept-routes")
        lab.laptop.wait_peer(lab.router)
        wait_for("the router's home relay is known", lambda: lab.laptop.peer(lab.router.ip())["Relay"])
        yield lab


def test_six_minutes_of_tcp_across_rekeys_lose_nothing_in_each_role():
    """Whoever sends first initiates, and rekeys. Both roles run side by side."""
    with mixed("asks", OURS, ORIGINAL) as asks, mixed("serves", ORIGINAL, OURS) as serves:
        runs = {"ours sends": Transfer(asks.laptop, asks.router, seconds=360), "the original sends": Transfer(serves.laptop, serves.router, seconds=360)}
        while any(run.stream.popen.poll() is None for run in runs.values()):
            for run in runs.values():
                run.look()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.stream.popen.wait(2)
        results = {name: run.result() for name, run in runs.items()}
        print(results)
        for name, result in results.items():
            assert result["whole"] and result["lost"] == [] and result["handshakes"] >= 3, (name, result)


@pytest.fixture(scope="module")
def pair():
    with mixed("again", OURS, ORIGINAL) as lab:
        yield lab


@pytest.mark.parametrize("restarted,sender", [("laptop", "laptop"), ("laptop", "router"), ("router", "laptop"), ("router", "router")])
def test_traffic_resumes_soon_after_a_restart(pair, restarted, sender):
    """The laptop is ours, the router the original's."""
    other = pair.router if restarted == "laptop" else pair.laptop
    gaps = restart_gaps(getattr(pair, restarted), getattr(pair, sender), other)
    print(f"{restarted} restarts, {sender} sends; after the API answers, whole silence:", gaps)
    assert max(after for after, _ in gaps) <= 5, gaps


def test_the_first_packet_and_page_after_up_come_at_once():
    with mixed("first", OURS, ORIGINAL) as lab:
        lab.laptop.stop()
        pings = first_contact(lab, "laptop", OURS, lab.router.ip())
        pages = first_contact(lab, "laptop", OURS, None, page="http://192.168.50.20/", up=["--accept-routes"])
        print("first ping:", pings, "first page:", pages)
        assert max(pings + pages) <= 1.5, (pings, pages)
