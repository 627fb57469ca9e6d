# SPDX-License-Identifier: BSD-3-Clause
"""Hosts whose resolver is kept by another program: Debian's own systemd-resolved (over a private D-Bus), resolvconf and openresolv,
unpacked beside this machine. NetworkManager only decides which of them is used; that choice is a unit test."""
import signal

import pytest
from dns_lab import OWN, debian_package, dns_lab, start, up
from lab import Lab, wait_for

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""


class Resolved:
    """systemd-resolved of one host, with a bus and a /run of its own."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host
        self.files = debian_package("systemd-resolved")
        host.sh("mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/systemd /etc/systemd && "
                "echo 'systemd-resolve:x:991:991::/:/usr/sbin/nologin' >>/etc/passwd && echo 'systemd-resolve:x:991:' >>/etc/group && "
                "printf '[Resolve]\\nDNS=10.50.0.2\\nDomains=office.example\\n' >/etc/systemd/resolved.conf")
        host.run(["sh", "-c", 'printf %s "$0" >/run/bus.conf', BUS])
        lab.start(host.space, [*host.enter, "dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile"], label="dbus")
        wait_for("the bus", lambda: host.run("test -S /run/dbus/system_bus_socket", check=False).returncode == 0)
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
