# SPDX-License-Identifier: BSD-3-Clause
"""A link that swallows full packets, with an original at the other end, which does not look after this itself."""
import pytest
from endurance import TRANSFER
from lab import ORIGINAL, OURS, Lab, wait_for


@pytest.mark.full
@pytest.mark.parametrize("ours_left", [True, False])
def test_nothing_hangs_in_either_direction(ours_left):
    with Lab("hole") as lab:
        lab.home_and_office()
        lab.derper(ORIGINAL / "derper")
        lab.control()
        lab.run("nat1", "iptables -I FORWARD -p udp -m length --length 1301:65535 -j DROP")
        a = lab.node("laptop", OURS if ours_left else ORIGINAL).start()
        b = lab.node("router", ORIGINAL if ours_left else OURS).start()
        b.join()
        a.join()
        a.wait_peer(b)
        b.wait_peer(a)
        for here, there in ((a, b), (b, a)):
            lab.start(there.space, ["python3", TRANSFER, "serve", 9200])
            wait_for("the receiver listens", lambda: lab.listening(there.space, 9200))
            run = lab.run(here.space, ["python3", TRANSFER, "send", there.ip(), 9200, 2, 20], check=False, timeout=120)
            print(f"\n{'ours' if here.binaries == OURS else 'original'} sends: {run.stdout.strip()}")
            assert '"whole": true' in run.stdout, run.stderr[-1000:]
