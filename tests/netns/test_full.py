# SPDX-License-Identifier: BSD-3-Clause
"""The long tier with our programs alone: rekeys under load, restarts, the first packet after up."""
import signal

import pytest
from endurance import Transfer, first_contact, restart_gaps
from lab import OURS, Lab

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def pair():
    with Lab("long") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control()
        lab.page()
        lab.laptop, lab.router = lab.node("laptop").start(), lab.node("router").start()
        lab.router.join("--advertise-routes=192.168.50.0/24")
        lab.laptop.join("--accept-routes")
        lab.laptop.wait_peer(lab.router)
        yield lab


@pytest.mark.parametrize("restarted,sender", [("laptop", "laptop"), ("laptop", "router"), ("router", "laptop"), ("router", "router")])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_traffic_resumes_soon_after_a_restart(pair, restarted, sender, sig):
    gaps = restart_gaps(getattr(pair, restarted), getattr(pair, sender), pair.router if restarted == "laptop" else pair.laptop, times=5, sig=sig)
    print("after the API answers, whole silence:", gaps)
    assert max(after for after, _ in gaps) <= 2, gaps


def test_six_minutes_of_tcp_across_rekeys_lose_nothing(pair):
    run = Transfer(pair.laptop, pair.router, seconds=360)
    while run.stream.popen.poll() is None:
        run.look()
        try:
            run.stream.popen.wait(3)
        except Exception:  # still running
            pass
    result = run.result()
    print(result)
    assert result["whole"] and result["lost"] == [] and result["handshakes"] >= 3, result


def test_the_first_packet_and_page_after_up_come_at_once(pair):
    pair.laptop.stop()
    pings = first_contact(pair, "laptop", OURS, pair.router.ip())
    pages = first_contact(pair, "laptop", OURS, None, page="http://192.168.50.20/", up=["--accept-routes"])
    print("first ping:", pings, "first page:", pages)
    assert max(pings + pages) <= 1.5, (pings, pages)
