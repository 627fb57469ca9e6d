# SPDX-License-Identifier: BSD-3-Clause
"""Hosts whose resolver is kept by another program: Debian's own systemd-resolved and NetworkManager (over a private D-Bus), resolvconf and
openresolv, unpacked beside this machine."""
import signal

import pytest
from dns_lab import OWN, debian_package, dns_lab, dnsmasq, start, up
from lab import Lab, wait_for

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""


def system_bus(lab, host):
    """A /run of the host's own with a D-Bus in it."""
    host.sh("mount -t tmpfs tmpfs /run && mkdir -p /run/dbus")
    host.run(["sh", "-c", 'printf %s "$0" >/run/bus.conf', BUS])
    lab.start(host.space, [*host.enter, "dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile"], label="dbus")
    wait_for("the bus", lambda: host.run("test -S /run/dbus/system_bus_socket", check=False).returncode == 0)


class Resolved:
    """systemd-resolved of one host; its bus is there."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host
        self.files = debian_package("systemd-resolved")
        host.sh("mkdir -p /run/systemd /etc/systemd && "
                "echo 'systemd-resolve:x:991:991::/:/usr/sbin/nologin' >>/etc/passwd && echo 'systemd-resolve:x:991:' >>/etc/group && "
                "printf '[Resolve]\\nDNS=10.50.0.2\\nDomains=office.example\\n' >/etc/systemd/resolved.conf")
        self.start()
        host.sh("ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")

    def start(self):
        self.process = self.lab.start(self.host.space, [*self.host.enter, self.files / "lib/systemd/systemd-resolved"], label="resolved")
        wait_for("resolved answers", lambda: "127.0.0.53" in self.lab.run(self.host.space, "ss -lunH").stdout and
                 self.host.run([self.files / "usr/bin/resolvectl", "dns"], check=False).returncode == 0)

    def link(self):
        ctl = self.files / "usr/bin/resolvectl"
        return {word: self.host.run([ctl, word, "tailscale0"], check=False).stdout.partition(":")[2].split() for word in ("dns", "domain", "default-route")}


def test_systemd_resolved():
    with Lab("resolved") as lab:
        a, b = dns_lab(lab, {"Routes": {"corp.example": [{"Addr": "10.50.0.2"}]}})
        system_bus(lab, a)
        resolved = Resolved(lab, a)
        other = start(b.node())
        up(other)
        node = start(a.node())
        up(node)
        assert 'dns: using "systemd-resolved" mode' in node.daemon.text(), node.daemon.text()
        link = resolved.link()
        assert link["dns"] == ["100.100.100.100", "fd7a:115c:a1e0::53"] and link["default-route"] == ["no"]
        assert link["domain"][0] == "tail.example" and "~corp.example" in link["domain"]
        assert a.run("readlink /etc/resolv.conf").stdout == "/run/systemd/resolve/stub-resolv.conf\n"
        node.wait_peer(other)
        assert a.resolves("b.tail.example") == other.ip()
        # resolved writes its search list for glibc a moment later.
        wait_for("the short name resolves", lambda: a.resolves("b") == other.ip())
        assert a.resolves("www.example.org") == "192.0.2.80" and a.resolves("printer") == "192.0.2.81"
        asked = next(p for p in lab.processes if p.log.name.startswith("dnsmasq")).text()
        assert "b.tail.example" not in asked, "names of the tailnet are asked nowhere else"
        # A resolved that was restarted is told again.
        resolved.process.stop()
        resolved.start()
        wait_for("our settings are back", lambda: resolved.link()["dns"] == ["100.100.100.100", "fd7a:115c:a1e0::53"])
        node.cli("set", "--accept-dns=false")
        assert resolved.link()["dns"] == []
        node.cli("set", "--accept-dns=true")
        assert resolved.link()["dns"] != []
        node.stop(signal.SIGKILL)
        assert a.resolves("www.example.org") == "192.0.2.80", "the settings went with the link"
        start(node)
        wait_for("our names resolve again", lambda: a.resolves("b") == other.ip())
        node.cli("down")
        assert resolved.link()["dns"] == [] and a.resolves("www.example.org") == "192.0.2.80"
        node.stop()


def test_a_resolved_that_hangs_holds_nobody_up():
    """It takes calls and never answers: the daemon goes on, and tells it again later."""
    with Lab("hangs") as lab:
        host, = dns_lab(lab, names=("a",))
        system_bus(lab, host)
        resolved = Resolved(lab, host)
        node = start(host.node())
        up(node)
        assert resolved.link()["dns"] != []
        resolved.process.popen.send_signal(signal.SIGSTOP)
        for words in ("--accept-dns=false", "--accept-dns=true"):
            change = lab.start("a", [node.cli_path, f"--socket={node.socket}", "set", words], label=f"set{words}")
            answers = 0
            while change.popen.poll() is None:
                node.status()
                answers += 1
            assert change.popen.returncode == 0 and answers >= 3, (words, answers, change.text())
        assert host.ask("a.tail.example")["values"] == [node.ip()], "our own names need nobody"
        wait_for("it is said", lambda: any("systemd-resolved could not be told" in t for t in node.status()["Health"] or []))
        resolved.process.popen.send_signal(signal.SIGCONT)
        lab.run("a", "ip addr add 10.50.3.99/16 dev eth0")  # a change of the network makes it look at once
        wait_for("nothing is said", lambda: not node.status()["Health"])
        assert resolved.link()["dns"] == ["100.100.100.100", "fd7a:115c:a1e0::53"] and host.resolves("a.tail.example") == node.ip()
        resolved.process.popen.send_signal(signal.SIGSTOP)
        assert node.stop() == 0


class NetworkManager:
    """Debian's NetworkManager of one host, with one connection on eth0. Without udev, as in containers: /sys is read-only."""

    def __init__(self, lab, host, dns):
        self.lab, self.host = lab, host
        files = debian_package("network-manager")
        host.sh(f"mount -t overlay overlay -o lowerdir={files}/usr:/usr /usr && mount -t tmpfs tmpfs /var/lib && mount -o remount,ro /sys && "
                "mkdir -p /run/NetworkManager /var/lib/NetworkManager /etc/NetworkManager/system-connections && "
                f"printf '[main]\\nplugins=keyfile\\ndns={dns}\\nauth-polkit=false\\n' >/etc/NetworkManager/NetworkManager.conf && "
                "printf '[connection]\\nid=lan\\ntype=ethernet\\ninterface-name=eth0\\n[ipv4]\\nmethod=manual\\naddress1=10.50.3.1/16\\n"
                "dns=10.50.0.2;\\ndns-search=office.example;\\n[ipv6]\\nmethod=disabled\\n' >/etc/NetworkManager/system-connections/lan.nmconnection "
                "&& chmod 600 /etc/NetworkManager/system-connections/lan.nmconnection")
        self.process = lab.start(host.space, [*host.enter, "/usr/sbin/NetworkManager", "--no-daemon"], label="networkmanager")
        wait_for("NetworkManager answers", lambda: host.run("nmcli general status", check=False).returncode == 0)
        host.run("nmcli connection up lan")


def test_networkmanager_that_writes_resolv_conf():
    """It has no say in what our link asks, so the file is ours while we are up, and its own file's servers are our upstream."""
    with Lab("nm") as lab:
        host, = dns_lab(lab, names=("a",))
        lab.run("srv", "ip addr add 10.50.0.4/16 dev eth0")
        dnsmasq(lab, "10.50.0.4", "--address=/www.example.org/192.0.2.90")
        system_bus(lab, host)
        NetworkManager(lab, host, "default")
        before = wait_for("its file", lambda: "Generated by NetworkManager" in host.resolv_conf() and host.resolv_conf())
        node = start(host.node())
        up(node)
        assert 'dns: using "direct" mode' in node.daemon.text() and "rc=nm" in node.daemon.text(), node.daemon.text()
        ip = node.ip()
        assert host.ours() and host.resolves("a.tail.example") == ip and host.resolves("www.example.org") == "192.0.2.80"
        # Another lease, another server: it writes its file, we ours, and ask the new server.
        rules = lab.run("a", "ip rule").stdout
        host.run("nmcli connection modify lan ipv4.dns 10.50.0.4")
        host.run("nmcli connection up lan")
        wait_for("the new server is asked", lambda: host.resolves("www.example.org") == "192.0.2.90")
        wait_for("ours again", host.ours)
        assert host.resolves("a.tail.example") == ip and lab.run("a", "ip rule").stdout == rules
        node.cli("down")
        assert host.resolv_conf() == before.replace("10.50.0.2", "10.50.0.4") and host.leftovers() == ""
        node.cli("up")
        node.stop(signal.SIGKILL)
        # A program it had just started may hold its socket for an instant longer.
        wait_for("cleaned up", lambda: host.run([node.binaries / "tailscaled", "--cleanup", f"--socket={node.socket}"], check=False).returncode == 0)
        assert host.resolv_conf() == before.replace("10.50.0.2", "10.50.0.4") and host.leftovers() == ""


def test_networkmanager_beside_resolved():
    with Lab("nmres") as lab:
        host, = dns_lab(lab, names=("a",))
        system_bus(lab, host)
        resolved = Resolved(lab, host)
        NetworkManager(lab, host, "systemd-resolved")
        node = start(host.node())
        up(node)
        assert 'dns: using "systemd-resolved" mode' in node.daemon.text() and "nm=resolved" in node.daemon.text(), node.daemon.text()
        assert not node.status()["Health"]
        good = resolved.link()
        assert host.resolves("a.tail.example") == node.ip() and host.resolves("www.example.org") == "192.0.2.80"
        # It tells resolved about its links anew, and leaves ours alone.
        host.run("nmcli connection up lan")
        assert resolved.link() == good and host.resolves("a.tail.example") == node.ip()
        node.stop()
        assert host.resolves("www.example.org") == "192.0.2.80"


def with_package(lab, host, name):
    """Lays a package's /sbin and /lib over the host's, and copies its /etc."""
    files = debian_package(name)
    host.sh(f"mount -t overlay overlay -o lowerdir={files}/sbin:/usr/sbin /usr/sbin && "
            f"mount -t overlay overlay -o lowerdir={files}/lib:/usr/lib /usr/lib && "
            f"cp -a {files}/etc/. /etc/ && mount -t tmpfs tmpfs /run && mkdir -p /run/resolvconf/interface")


@pytest.mark.parametrize("package, mode", [("resolvconf", "debian-resolvconf"), ("openresolv", "openresolv")])
def test_resolvconf(package, mode):
    with Lab(package[:6]) as lab:
        host, = dns_lab(lab, names=("a",))
        with_package(lab, host, package)
        if package == "resolvconf":
            host.sh("resolvconf --enable-updates; ln -sf /run/resolvconf/resolv.conf /etc/resolv.conf")
        host.run(["sh", "-c", 'printf %s "$0" | resolvconf -a eth0.dhclient', OWN])
        before = host.resolv_conf()
        assert "resolvconf" in before and "nameserver 10.50.0.2" in before, before
        node = start(host.node())
        up(node)
        assert f'dns: using "{mode}" mode' in node.daemon.text(), node.daemon.text()
        ip, text = node.ip(), host.resolv_conf()
        assert "nameserver 100.100.100.100" in text and "nameserver 10.50.0.2" not in text, text
        assert host.resolves("a.tail.example") == ip and host.resolves("www.example.org") == "192.0.2.80"
        # A lease that comes while we are up changes our upstream, not the file.
        host.run(["sh", "-c", 'printf %s "$0" | resolvconf -a eth0.dhclient', OWN.replace("office", "branch")])
        assert "nameserver 10.50.0.2" not in host.resolv_conf()
        host.run(["sh", "-c", 'printf %s "$0" | resolvconf -a eth0.dhclient', OWN])
        for way in ("accept", "down", "kill", "term"):
            if way == "accept":
                node.cli("set", "--accept-dns=false")
            elif way == "down":
                node.cli("down")
            elif way == "kill":
                node.stop(signal.SIGKILL)
                host.run([node.binaries / "tailscaled", "--cleanup", f"--socket={node.socket}"])
            else:
                node.stop()
            assert host.resolv_conf() == before and host.leftovers() == "", way
            if way == "accept":
                node.cli("set", "--accept-dns=true")
            elif way == "down":
                node.cli("up")
            elif way == "kill":
                start(node)
                wait_for("ours again", lambda: host.resolves("a.tail.example") == ip)
            if way != "term":
                assert "nameserver 100.100.100.100" in host.resolv_conf(), way
