# SPDX-License-Identifier: BSD-3-Clause
"""Subnet routers and exit nodes: who gets which packet, and that no route of others ever cuts a host off."""

import http_from
import pytest
from lab import ORIGINAL, OURS, TAILNETS, Lab, wait_for
from test_host import BOTH, opposite

PEERS = [pytest.param((OURS, OURS), id="ours"), pytest.param((OURS, ORIGINAL), id="original-router"),
         pytest.param((ORIGINAL, OURS), id="original-client")]
# In a tailnet of 10.0.0.0/8 the original takes its own tunnel's address for the network's and drops its control connection.
CASES = [*(pytest.param((*p.values[0], "usual"), id=p.id) for p in PEERS), pytest.param((OURS, OURS, "small"), id="ours-small")]


def web(lab, space, address, port=80):
    """Answers each request with the address that it came from."""
    return http_from.web(lab, space, address, port, "who")


def internet(lab, listen="0.0.0.0"):
    """A server with a public address: exit nodes carry nothing to private ones."""
    lab.space("net")
    lab.uplink("net", "10.50.9.9/16", "2001:db8:50::9/64")
    lab.run("net", "ip addr add 198.51.100.9/32 dev lo")
    for n in (1, 2):
        lab.run(f"nat{n}", "ip route add 198.51.100.9 via 10.50.9.9")
    web(lab, "net", listen)


def offer_exit(lab, node, ours):
    node.join("--advertise-exit-node")
    lab.run(node.space, "sysctl -qw net.ipv6.conf.all.forwarding=1")


@pytest.fixture(params=CASES)
def exit_pair(request):
    """laptop uses, router offers; the internet has a page, and so has the laptop's own LAN."""
    client, router, tailnet = request.param
    with Lab("exit") as lab:
        lab.home_and_office()
        lab.add_v6()
        internet(lab, "::")
        for n in (1, 2):
            lab.run("net", f"ip route add 2001:db8:{n}::/64 via 2001:db8:50::1{n}")
            lab.run(f"nat{n}", "ip route add 2001:db8:9::/64 via 2001:db8:50::9 dev wan")
        lab.run("net", "ip addr add 2001:db8:9::9/64 dev lo")
        lab.host("printer", "192.168.1.30/24", "nat1", "192.168.1.1")
        web(lab, "printer", "0.0.0.0")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        lab.v6 = tailnet == "usual"
        lab.before = lab.host_state("laptop")
        lab.a = lab.node("laptop", client).start()
        lab.b = lab.node("router", router).start()
        offer_exit(lab, lab.b, router == OURS)
        lab.a.join()
        lab.a.wait_peer(lab.b)
        wait_for("the offer", lambda: lab.a.peer(lab.b.ip()).get("ExitNodeOption"))
        yield lab


def page(lab, url, timeout=2):
    return lab.fetch("laptop", url, timeout=timeout).stdout


def test_an_exit_node_carries_the_internet_and_nothing_leaks(exit_pair):
    lab, a, b = exit_pair, exit_pair.a, exit_pair.b
    assert page(lab, "http://198.51.100.9/") == "10.50.1.1"
    listed = a.cli("exit-node", "list").stdout
    assert b.ip() in listed and "selected" not in listed, listed
    a.cli("set", f"--exit-node={b.ip()}")
    wait_for("the page by the exit node", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")
    if lab.v6:
        assert page(lab, "http://[2001:db8:9::9]/").startswith("2001:db8:2:"), "IPv6 as well"
    else:
        assert page(lab, "http://[2001:db8:9::9]/", timeout=1) == "", "or not at all, but never past it"
    assert "selected" in a.cli("exit-node", "list").stdout
    assert a.status()["ExitNodeStatus"]["Online"]
    # The tunnel itself and the control server stay outside.
    assert wait_for("a direct path", lambda: a.direct(b.ip()), timeout=10)
    # The own LAN is not reached, as nobody asked for it.
    assert page(lab, "http://192.168.1.30/", timeout=1) == ""
    a.cli("set", "--exit-node-allow-lan-access")
    wait_for("the LAN", lambda: page(lab, "http://192.168.1.30/") == "192.168.1.10")
    assert page(lab, "http://198.51.100.9/") == "10.50.2.1"
    routes = lab.run("laptop", "ip route show table 52").stdout
    assert "throw 192.168.1.0/24" in routes and "default dev tailscale0" in routes
    # An exit node that is gone: nothing goes past it.
    b.cli("down")
    assert page(lab, "http://198.51.100.9/", timeout=1) == ""
    b.cli("up")
    wait_for("back", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")
    a.cli("set", "--exit-node=")
    wait_for("by the own router again", lambda: page(lab, "http://198.51.100.9/") == "10.50.1.1")
    assert a.stop() == 0
    if a.binaries == OURS:
        assert lab.host_state("laptop") == lab.before


def test_exit_node_by_name_in_up_and_refusals():
    with Lab("exitname") as lab:
        lab.home_and_office()
        lab.add_v6()
        lab.derper()
        lab.control(prefix="10.1.0.0/16", v6="off")
        internet(lab, "::")
        lab.run("net", "ip route add 2001:db8:1::/64 via 2001:db8:50::11")
        a, b = lab.node("laptop").start(), lab.node("router").start()
        a.join()
        assert page(lab, "http://[2001:db8:50::9]/").startswith("2001:db8:1:")
        assert a.cli("exit-node", "list", check=False).stderr == "no exit nodes found\n"
        b.join()
        a.wait_peer(b)
        assert "is not advertising an exit node" in a.cli("set", f"--exit-node={b.ip()}", check=False).stderr
        b.cli("set", "--advertise-exit-node")
        wait_for("the offer", lambda: a.peer(b.ip()).get("ExitNodeOption"))
        a.cli("set", "--exit-node=router")
        wait_for("the page by the exit node", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")
        assert page(lab, "http://[2001:db8:50::9]/", timeout=1) == "", "a tailnet without IPv6 lets none go past its exit node"
        # A restart goes on with it.
        a.stop()
        a.start()
        wait_for("the page by the exit node", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")


def test_routes_of_others_never_cut_a_host_off():
    """An accepted route equals the own LAN, the gateway, the control server's network, a peer's endpoint, everything at once."""
    with Lab("cutoff") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control()
        lab.host("printer", "192.168.1.30/24", "nat1", "192.168.1.1")
        web(lab, "printer", "0.0.0.0")
        a, b = lab.node("laptop").start(), lab.node("router").start()
        everything = "192.168.1.0/24,192.168.1.1/32,192.168.1.128/25,192.168.0.0/16,10.50.0.0/16,10.50.0.2/32,10.50.2.1/32,192.168.50.0/24"
        b.join(f"--advertise-routes={everything}")
        a.join("--accept-routes")
        a.wait_peer(b)
        routes = wait_for("routes", lambda: (t := lab.run("laptop", "ip route show table 52").stdout) if "10.50.0.0/16" in
                          lab.run("laptop", "ip route show table 52").stdout else None)
        assert "throw 192.168.1.0/24" in routes and "192.168.0.0/16 dev tailscale0" in routes
        for refused in ("192.168.1.0/24 dev", "192.168.1.1 dev", "192.168.1.128/25 dev"):
            assert refused not in routes, routes
        run = a.ping_through(b.ip(), count=40)
        assert page(lab, "http://192.168.1.30/") == "192.168.1.10"
        assert lab.run("laptop", "ping -c 1 -W 1 192.168.1.1").returncode == 0
        assert run.finish().lost == 0
        wait_for("a direct path", lambda: a.direct(b.ip()), timeout=10)
        # Control is still there: a change of the other node arrives.
        b.cli("set", f"--advertise-routes={everything},192.0.2.0/24")
        wait_for("news from control", lambda: "192.0.2.0/24" in lab.run("laptop", "ip route show table 52").stdout)
        said = [t for t in a.status()["Health"] if "is not used: this host is itself connected to" in t]
        assert len(said) == 3, said
        # A network that is plugged in later takes over from the tunnel.
        lab.space("late")
        lab.veth("laptop", "eth1", "late", "eth0")
        lab.run("late", "ip addr add 192.168.50.20/24 dev eth0")
        web(lab, "late", "0.0.0.0")
        lab.run("laptop", "ip addr add 192.168.50.99/24 dev eth1")
        wait_for("the own network", lambda: page(lab, "http://192.168.50.20/", timeout=1) == "192.168.50.99")


@pytest.mark.parametrize("case", CASES)
def test_big_packets_of_a_lan_learn_the_tunnels_size(case):
    """A LAN of 1500 bytes behind the router, DF set: the sender is told, TCP goes on; fragments arrive."""
    client, router, tailnet = case
    with Lab("mtu") as lab:
        lab.home_and_office()
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        a, b = lab.node("laptop", client).start(), lab.node("router", router).start()
        b.join("--advertise-routes=192.168.50.0/24", "--snat-subnet-routes=false")
        a.join("--accept-routes")
        a.wait_peer(b)
        lab.run("lanhost", f"ip route add {a.ip()} via 192.168.50.1")
        wait_for("the LAN", lambda: lab.run("lanhost", f"ping -c 1 -W 1 {a.ip()}", check=False).returncode == 0)
        told = lab.run("lanhost", f"ping -M do -s 1400 -c 2 -W 1 {a.ip()}", check=False)
        assert "mtu=1280" in told.stdout + told.stderr, told.stdout + told.stderr
        lab.run("lanhost", "ip route flush cache")
        assert lab.run("lanhost", f"ping -M dont -s 2000 -c 2 -W 2 {a.ip()}").returncode == 0, "fragments"
        assert lab.run("laptop", "ping -M dont -s 3000 -c 2 -W 2 192.168.50.20").returncode == 0, "fragments from here"
        big = "x" * 300_000 + "\n"
        lab.page(text=big)
        assert lab.fetch("laptop", "http://192.168.50.20/", timeout=10).stdout == big


def test_a_small_tunnel_has_no_ipv6_and_works():
    with Lab("small") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        a, b = lab.node("a", env={"TS_DEBUG_MTU": "1200"}).start(), lab.node("b").start()
        a.join()
        b.join()
        a.wait_peer(b)
        wait_for("traffic", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0)
        assert "mtu 1200" in lab.run("a", "ip link show tailscale0").stdout
        assert lab.run("a", "ip -6 rule").stdout.count("lookup 52") == 0
        big = "y" * 200_000 + "\n"
        lab.page("b", text=big)
        assert lab.fetch("a", f"http://{b.ip()}/", timeout=10).stdout == big


def test_a_host_without_ipv6():
    with Lab("nov6") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        lab.run("a", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
        before = lab.host_state("a")
        a, b = lab.pair("a", "b")
        wait_for("traffic", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0)
        assert "router: disabling tunneled IPv6 due to system IPv6 config: disable_ipv6 is set" in a.daemon.text()
        assert "52" not in lab.run("a", "ip -6 rule").stdout
        assert a.stop() == 0
        assert lab.host_state("a") == before


# Built for this test: requests about rules go to the kernel as of a type that it does not know, as on a kernel without policy routing.
NO_RULES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
ssize_t sendto(int fd, const void* data, size_t n, int flags, const struct sockaddr* to, socklen_t len) {
  static ssize_t (*real)(int, const void*, size_t, int, const struct sockaddr*, socklen_t);
  if (!real) real = (ssize_t (*)(int, const void*, size_t, int, const struct sockaddr*, socklen_t))dlsym(RTLD_NEXT, "sendto");
  struct nlmsghdr* h = (struct nlmsghdr*)data;
  if (to && to->sa_family == AF_NETLINK && h->nlmsg_type >= RTM_NEWRULE && h->nlmsg_type <= RTM_GETRULE) h->nlmsg_type = RTM_MAX + 4;
  return real(fd, data, n, flags, to, len);
}
"""


def test_a_kernel_without_policy_routing():
    """Routes go into main then; what the kernel answers is real, only the question is bent."""
    with Lab("norule") as lab:
        shim = lab.shim("no_rules", NO_RULES)
        lab.home_and_office()
        lab.derper()
        lab.control()
        lab.page()
        before = lab.host_state("laptop")
        a, b = lab.node("laptop", env={"LD_PRELOAD": str(shim)}).start(), lab.node("router").start()
        b.join("--advertise-routes=192.168.50.0/24")
        a.join("--accept-routes")
        a.wait_peer(b)
        assert "router: running without policy routing" in a.daemon.text()
        wait_for("the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/").returncode == 0)
        assert wait_for("a direct path", lambda: a.direct(b.ip()))
        assert lab.run("laptop", "ip rule").stdout == "\n".join(before["ip rule"]) + "\n"
        assert "192.168.50.0/24 dev tailscale0" in lab.run("laptop", "ip route show table main").stdout
        lab.run("laptop", "ip route del 192.168.50.0/24 dev tailscale0")
        wait_for("the route is mended", lambda: "192.168.50.0/24 dev tailscale0" in lab.run("laptop", "ip route show table main").stdout, timeout=4)
        assert a.stop() == 0
        assert lab.host_state("laptop") == before


PREFIX = {"usual": "100.64.0.0/10", "small": "10.1.0.0/16"}


def home(lab, n, tailnet, others=()):
    """A gateway, a host of its LAN without a client, and beside them a side router to which the gateway sends the tailnet and other homes."""
    lan = f"192.168.{n}"
    lab.nat(f"gw{n}", f"10.50.{n}.1", f"{lan}.1/24")
    lab.host(f"side{n}", f"{lan}.10/24", f"gw{n}", f"{lan}.1")
    lab.run(f"side{n}", "sysctl -qw net.ipv4.ip_forward=1")
    lab.host(f"tv{n}", f"{lan}.20/24", f"gw{n}", f"{lan}.1")
    for prefix in (PREFIX[tailnet], *(f"192.168.{o}.0/24" for o in others)):
        lab.run(f"gw{n}", f"ip route add {prefix} via {lan}.10")
    web(lab, f"tv{n}", f"{lan}.20")


@pytest.mark.parametrize("case", [pytest.param(*c.values, id=c.id, marks=[pytest.mark.full] if c.id in ("ours", "original-client") else []) for c in CASES])
def test_two_homes_with_side_routers_and_docker(case):
    """Hosts without a client reach those of the other home under their own addresses; the side routers run Docker, whose policy drops what it
    does not know. With SNAT the other side sees the router."""
    binaries, tailnet = case[:2], case[2]
    with Lab("homes") as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        for n, other in ((1, 2), (2, 1)):
            home(lab, n, tailnet, [other])
            for command in ("iptables -P FORWARD DROP", "iptables -N DOCKER-USER", "iptables -A DOCKER-USER -j RETURN", "iptables -N DOCKER-FORWARD",
                            "iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT", "iptables -I FORWARD -j DOCKER-FORWARD",
                            "iptables -I FORWARD -j DOCKER-USER", "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"):
                lab.run(f"side{n}", command)
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        sides = [lab.node(f"side{n}", binary).start() for n, binary in zip((1, 2), binaries)]
        for n, side in zip((1, 2), sides):
            side.join(f"--advertise-routes=192.168.{n}.0/24", "--accept-routes", "--snat-subnet-routes=false")
        sides[0].wait_peer(sides[1])
        for n, other in ((1, 2), (2, 1)):
            wait_for(f"home {other} from home {n}", lambda: lab.fetch(f"tv{n}", f"http://192.168.{other}.20/", timeout=2).stdout == f"192.168.{n}.20")
        for side in sides:
            side.cli("set", "--snat-subnet-routes")
        for n, other in ((1, 2), (2, 1)):
            wait_for(f"home {n} shows its router", lambda: lab.fetch(f"tv{n}", f"http://192.168.{other}.20/", timeout=2).stdout == f"192.168.{other}.10")
        # Docker starts anew, with its jumps above ours.
        for n in (1, 2):
            for command in ("iptables -D FORWARD -j DOCKER-USER", "iptables -I FORWARD -j DOCKER-USER"):
                lab.run(f"side{n}", command)
            assert lab.fetch(f"tv{n}", f"http://192.168.{3 - n}.20/").stdout


@BOTH
def test_a_side_router_in_a_home(tailnet):
    """LAN hosts without a client: the home's gateway sends the tailnet to the side router beside it."""
    with Lab("side") as lab:
        lab.core()
        lab.space("srv")
        lab.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        home(lab, 1, tailnet)
        lab.on_core("far")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        lab.page("far", text="far\n")
        side, far = lab.node("side1").start(), lab.node("far").start()
        side.join("--advertise-routes=192.168.1.0/24")
        far.join("--accept-routes")
        far.wait_peer(side)
        wait_for("the television by SNAT", lambda: lab.fetch("far", "http://192.168.1.20/").stdout == "192.168.1.10")
        # From the LAN into the tailnet: the LAN's addresses are in the route that the side router advertises.
        assert lab.fetch("tv1", f"http://{far.ip()}/").stdout == "far\n"
        side.cli("set", "--snat-subnet-routes=false")
        wait_for("the television without SNAT, which sees who it is", lambda: lab.fetch("far", "http://192.168.1.20/").stdout == far.ip())
        assert lab.fetch("tv1", f"http://{far.ip()}/").stdout == "far\n"


@BOTH
def test_strict_reverse_path_filtering(tailnet):
    with Lab("rpf") as lab:
        lab.home_and_office()
        for name in ("laptop", "router"):
            lab.run(name, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1")
        internet(lab)
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        lab.page()
        a, b = lab.node("laptop").start(), lab.node("router", opposite(tailnet)).start()
        b.join("--advertise-routes=192.168.50.0/24", "--advertise-exit-node")
        a.join("--accept-routes")
        a.wait_peer(b)
        wait_for("the LAN", lambda: lab.fetch("laptop", "http://192.168.50.20/").returncode == 0)
        a.cli("set", f"--exit-node={b.ip()}")
        wait_for("the page by the exit node", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")
        assert wait_for("a direct path", lambda: a.direct(b.ip()), timeout=10)


def test_sockets_bound_to_the_device_instead_of_marked():
    with Lab("bind") as lab:
        lab.home_and_office()
        internet(lab)
        lab.derper()
        lab.control()
        a, b = lab.node("laptop", env={"TS_FORCE_LINUX_BIND_TO_DEVICE": "1"}).start(), lab.node("router").start()
        b.join("--advertise-exit-node")
        a.join()
        a.wait_peer(b)
        a.cli("set", f"--exit-node={b.ip()}")
        wait_for("the page by the exit node", lambda: page(lab, "http://198.51.100.9/") == "10.50.2.1")
        run = a.ping_through(b.ip(), count=40).finish()
        assert run.lost == 0


@BOTH
def test_beside_mwan3(tailnet):
    """OpenWrt's mwan3 steers by marks from priority 2001 on: our rules come before it."""
    with Lab("mwan3") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control(**TAILNETS[tailnet])
        for command in ("ip route add default via 10.50.0.2 table 1", "ip rule add pref 2001 fwmark 0x100/0x3f00 lookup 1",
                        "ip rule add pref 2061 fwmark 0x3d00/0x3f00 blackhole"):
            lab.run("a", command)
        before = lab.host_state("a")
        a, b = lab.node("a"), lab.node("b", opposite(tailnet)).start()
        a.start(wrap=["sh", "-c", 'mkdir -p /etc/config && : >/etc/config/mwan3 && exec "$@"', "sh"])
        a.join()
        b.join()
        a.wait_peer(b)
        rules = lab.run("a", "ip rule").stdout
        for pref in (1310, 1330, 1350, 1370):
            assert f"\n{pref}:\t" in rules, rules
        assert "5270:" not in rules
        # mwan3 marks connections: the tailnet's must go into the tunnel all the same.
        lab.run("a", "iptables -t mangle -A OUTPUT -j MARK --set-xmark 0x100/0x3f00")
        wait_for("traffic", lambda: a.ping_through(b.ip(), count=1).finish().lost == 0)
        lab.run("a", "ip rule del pref 1370")
        wait_for("mended", lambda: "1370:" in lab.run("a", "ip rule").stdout, timeout=4)
        lab.run("a", "iptables -t mangle -D OUTPUT 1")
        assert a.stop() == 0
        after = lab.host_state("a")
        assert after["ip rule"] == before["ip rule"] and after["ip route show table all"] == before["ip route show table all"]


def test_forms_of_advertise_routes():
    with Lab("forms") as lab:
        lab.flat("a", "b")
        lab.derper()
        lab.control()
        a, b = lab.node("a").start(), lab.node("b").start()
        a.join("--accept-routes")
        b.join()
        a.wait_peer(b)

        def routes():
            return lab.run("a", "ip route show table 52").stdout + lab.run("a", "ip -6 route show table 52").stdout

        def refused(*args):
            done = b.cli("set", *args, check=False)
            assert done.returncode == 1, done
            return done.stderr

        b.cli("set", "--advertise-routes=192.0.2.0/24,2001:db8:7::/64,198.51.100.7/32")
        wait_for("three routes", lambda: all(r in routes() for r in ("192.0.2.0/24", "2001:db8:7::/64", "198.51.100.7")))
        b.cli("set", "--advertise-routes=192.0.2.0/24")
        wait_for("one route", lambda: "192.0.2.0/24" in routes() and "2001:db8:7" not in routes() and "198.51.100.7" not in routes())
        assert refused("--advertise-routes=192.0.2.1/24") == "192.0.2.1/24 has non-address bits set; expected 192.0.2.0/24\n"
        assert "0.0.0.0/0" in refused("--advertise-routes=0.0.0.0/0")
        assert refused("--advertise-routes=nonsense")
        # Default routes beside others: the exit node is one more.
        b.cli("set", "--advertise-exit-node")
        wait_for("the offer", lambda: a.peer(b.ip()).get("ExitNodeOption"))
        assert "192.0.2.0/24" in routes() and "default" not in routes()
        b.cli("set", "--advertise-exit-node=false")
        wait_for("no offer", lambda: not a.peer(b.ip()).get("ExitNodeOption"))
        assert "192.0.2.0/24" in routes()
        b.cli("set", "--advertise-routes=")
        wait_for("none", lambda: "192.0.2.0/24" not in routes())


@pytest.mark.parametrize("client", [pytest.param(OURS, id="ours"), pytest.param(ORIGINAL, id="original")])
@pytest.mark.parametrize("snat", ["true", "false"])
def test_4via6_tells_equal_networks_apart(client, snat):
    """Two sites with the same 192.168.50.0/24; our router turns IPv6 into IPv4 and back."""
    with Lab("via6") as lab:
        lab.home_and_office()
        # The second site beside the laptop's gateway.
        lab.host("router2", "192.168.1.40/24", "nat1", "192.168.1.1")
        lab.run("router2", "sysctl -qw net.ipv4.ip_forward=1")
        lab.space("lanhost2")
        lab.veth("router2", "lan0", "lanhost2", "eth0")
        lab.run("router2", "ip addr add 192.168.50.1/24 dev lan0")
        lab.run("lanhost2", "ip addr add 192.168.50.20/24 dev eth0")
        lab.run("lanhost2", "ip route add default via 192.168.50.1")
        lab.derper()
        lab.control()
        a = lab.node("laptop", client).start()
        routers = [lab.node("router").start(), lab.node("router2").start()]
        for site, router in zip((7, 8), routers):
            router.join(f"--advertise-routes=fd7a:115c:a1e0:b1a:0:{site}:c0a8:3200/120", f"--snat-subnet-routes={snat}")
        a.join("--accept-routes")
        for router in routers:
            a.wait_peer(router)
        big = "z" * 200_000
        lab.page("lanhost", text=f"seven {big}\n")
        lab.page("lanhost2", text=f"eight {big}\n")
        for site, text in ((7, "seven"), (8, "eight")):
            url = f"http://[fd7a:115c:a1e0:b1a:0:{site}:c0a8:3214]/"
            assert wait_for(f"site {site}", lambda: lab.fetch("laptop", url).stdout) == f"{text} {big}\n"
            assert lab.run("laptop", f"ping -6 -c 2 -W 2 fd7a:115c:a1e0:b1a:0:{site}:c0a8:3214").returncode == 0
        seen = next(p for p in lab.processes if p.log.name.startswith("page-lanhost2"))
        assert ("192.168.50.1" if snat == "true" else a.ip()) in seen.text(), seen.text()
        assert not any("orwarding" in text for text in routers[0].status()["Health"] or []), "IPv4 is what is forwarded"
