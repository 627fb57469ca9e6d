# SPDX-License-Identifier: BSD-3-Clause
"""A link that swallows full packets, with an original at the other end, which does not look after this itself."""
import pytest
from endurance import TRANSFER, receiver
from lab import ORIGINAL, OURS, Lab


@pytest.mark.full
@pytest.mark.parametrize("ours_left", [True, False])
def test_nothing_hangs_in_either_direction(ours_left):
    with Lab("hole") as lab:
        lab.home_and_office()
        lab.derper(ORIGINAL / "derper")
        lab.control()
        lab.run("nat1", "iptables -I FORWARD -p udp -m length --length 1301:65535 -j DROP")
        a, b = lab.laptop_and_router(*((OURS, ORIGINAL) if ours_left else (ORIGINAL, OURS)))
        for here, there in ((a, b), (b, a)):
            run = lab.run(here.space, ["python3", TRANSFER, "send", there.ip(), receiver(there), 2, 20], check=False, timeout=120)
            print(f"\n{'ours' if here.binaries == OURS else 'original'} sends: {run.stdout.strip()}")
            assert '"whole": true' in run.stdout, run.stderr[-1000:]
