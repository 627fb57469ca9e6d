# SPDX-License-Identifier: BSD-3-Clause
"""A small internet in network namespaces, made of veth pairs, one bridge and NAT routers. Meant to run under ./isolated, which
guarantees the clean-up.

    srv 10.50.0.2,3      nat1 10.50.1.1 --- 192.168.1.0/24 --- laptop .10
          \\               /
           core (bridge 10.50.0.0/16)
                          \\
                           nat2 10.50.2.1 --- 192.168.2.0/24 --- router .10 --- 192.168.50.0/24 --- lanhost .20

Control servers get a private address: with a public one on an odd port the original client insists on port 443. NAT routers
drop unsolicited packets to themselves, or connection tracking remaps the port and plain pairs stay relayed."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OURS = pathlib.Path(os.environ.get("TAILMESH_BIN", ROOT / "build/release/bin"))
ORIGINAL = ROOT / "build/interop/bin"
DERP_PORT, STUN_PORT, CONTROL_PORT = 12345, 38894, 8080
# Options of Lab.control(): the usual tailnet, and one of self-hosters: another prefix, no IPv6.
TAILNETS = {"usual": {}, "small": {"prefix": "10.1.0.0/16", "v6": "off"}}


class Failure(Exception):
    pass


def wait_for(what, condition, timeout=10.0, interval=0.02):
    """Returns the first true value of condition(); raises after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"timed out after {timeout} s: {what}")
        time.sleep(interval)


class Process:
    def __init__(self, popen, log):
        self.popen, self.log = popen, pathlib.Path(log)

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_text(self, pattern, timeout=10.0):
        def look():
            if self.popen.poll() is not None and not re.search(pattern, self.text()):
                raise Failure(f"ended with {self.popen.returncode} before {pattern!r}:\n{self.text()[-3000:]}")
            return re.search(pattern, self.text())
        return wait_for(f"{pattern!r} in {self.log.name}", look, timeout)

    def stop(self, sig=signal.SIGTERM, timeout=10):
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failure(f"{self.log.name}: did not stop within {timeout} s of {sig!r}\n{self.text()[-3000:]}")


class Lab:
    def __init__(self, name="lab"):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"tailmesh-{name}-"))
        self.spaces, self.processes, self.count, self.flat_hosts = [], [], 0, 0
        self.prefix = f"{name[:6]}{os.getpid() % 1000}"
        self.hosts = {}  # name → address, in the /etc/hosts of every process

    # namespaces and links -------------------------------------------------------------------------------------------
    def full(self, name):
        return f"{self.prefix}-{name}"

    def space(self, name):
        subprocess.run(["ip", "netns", "add", self.full(name)], check=True)
        self.spaces.append(name)
        self.run(name, "ip link set lo up")
        self.run(name, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
        return name

    def argv(self, name, command):
        command = command.split() if isinstance(command, str) else [str(c) for c in command]
        return ["ip", "netns", "exec", self.full(name), *command]

    def run(self, name, command, check=True, timeout=60, **kw):
        done = subprocess.run(self.argv(name, command), capture_output=True, text=True, errors="replace", timeout=timeout, **kw)
        if check and done.returncode != 0:
            raise Failure(f"{name}: {command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, name, command, label=None, env=None, cwd=None):
        """A process in a namespace, with a private view of /etc; output goes to a log file."""
        self.count += 1
        label = label or f"{name}-{self.count}"
        log = self.dir / f"{label}.log"
        etc = self.dir / f"etc-{self.count}"
        (etc / "upper").mkdir(parents=True)
        (etc / "work").mkdir()
        command = command.split() if isinstance(command, str) else [str(c) for c in command]
        # ip netns exec already gave a private mount namespace; a tmpfs carries the layer, as overlays cannot stack on overlays.
        script = (f'mount -t tmpfs tmpfs "{etc}" && mkdir "{etc}/u" "{etc}/w" && mount -t overlay overlay -o '
                  f'lowerdir=/etc,upperdir="{etc}/u",workdir="{etc}/w" /etc && hostname "$0" && printf "%b" "$LAB_HOSTS" >>/etc/hosts && exec "$@"')
        hosts = "".join(f"{address} {host}\\n" for host, address in {name: "127.0.1.1", **self.hosts}.items())
        home = self.dir / "home"
        home.mkdir(exist_ok=True)
        with open(log, "ab") as out:
            popen = subprocess.Popen(self.argv(name, ["unshare", "--uts", "sh", "-c", script, name, *command]), stdout=out, stderr=out,
                                     stdin=subprocess.DEVNULL, env={**os.environ, "HOME": str(home), "LAB_HOSTS": hosts, **(env or {})}, cwd=cwd)
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def veth(self, a, a_if, b, b_if):
        self.count += 1
        x, y = f"v{self.count}a", f"v{self.count}b"
        subprocess.run(["ip", "link", "add", x, "type", "veth", "peer", "name", y], check=True)
        for link, space, name in ((x, a, a_if), (y, b, b_if)):
            subprocess.run(["ip", "link", "set", link, "netns", self.full(space), "name", name], check=True)
            self.run(space, f"ip link set {name} up")

    def cable(self, a, a_if, b, b_if, **how):
        """As veth(), by lab-link: delay, jitter (ms), loss, loss_in, duplicate, reorder (percent), kbit, queue, mtu. Returns its process."""
        self.count += 1
        x, y = f"c{self.count}a", f"c{self.count}b"
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in how.items()]
        p = self.start(a, [OURS / "lab-link", "--a", x, "--b", y, *flags], label=f"link-{self.count}")
        p.wait_text("ready")
        for link, space, name in ((x, a, a_if), (y, b, b_if)):
            self.run(a, f"ip link set {link} name {name}" if space == a else f"ip link set {link} netns {self.full(space)} name {name}")
            self.run(space, f"ip link set {name} up")
        return p

    def core(self):
        self.space("core")
        self.run("core", "ip link add br0 type bridge")
        self.run("core", "ip link set br0 up")

    def uplink(self, name, *addresses, interface="eth0", **how):
        """Joins a namespace to the core; addresses like 10.50.0.2/16. `how`: as in cable()."""
        self.count += 1
        port = f"p{self.count}"
        if how:
            self.cable(name, interface, "core", port, **how)
        else:
            self.veth(name, interface, "core", port)
        self.run("core", f"ip link set {port} master br0")
        for a in addresses:
            self.run(name, f"ip addr add {a} dev {interface}" + (" nodad" if ":" in a else ""))

    def nat(self, name, wan, lan, kind="easy", behind=None, wire=None):
        """A router with WAN address `wan`/16 and LAN gateway `lan` (like 192.168.1.1/24). Kinds: easy, range (easy, but with another
        port), hard, blocked (no UDP). `behind`: the router whose LAN it is in, with the gateway's address; `wan` is a /24 then.
        `wire`: what its uplink does to packets, as in cable()."""
        self.space(name)
        if behind:
            self.host(name, f"{wan}/24", *behind, interface="wan")
        else:
            self.uplink(name, f"{wan}/16", interface="wan", **(wire or {}))
        self.run(name, "sysctl -qw net.ipv4.ip_forward=1")
        self.run(name, "ip link add lan type bridge")
        self.run(name, f"ip addr add {lan} dev lan")
        self.run(name, "ip link set lan up")
        if kind == "range":
            self.run(name, "iptables -t nat -A POSTROUTING -o wan -p udp -j MASQUERADE --to-ports 20000-30000")
        random = " --random-fully" if kind == "hard" else ""
        self.run(name, f"iptables -t nat -A POSTROUTING -o wan -j MASQUERADE{random}")
        self.run(name, "iptables -A INPUT -i wan -m conntrack --ctstate NEW -j DROP")
        self.run(name, "iptables -A FORWARD -i wan -m conntrack --ctstate NEW -j DROP")
        if kind == "blocked":
            self.run(name, "iptables -A FORWARD -p udp -j DROP")

    def host(self, name, address, gateway_space, gateway=None, interface="eth0"):
        """A host on the LAN bridge of a router."""
        if name not in self.spaces:
            self.space(name)
        self.count += 1
        port = f"l{self.count}"
        self.veth(name, interface, gateway_space, port)
        self.run(gateway_space, f"ip link set {port} master lan")
        self.run(name, f"ip addr add {address} dev {interface}")
        if gateway:
            self.run(name, f"ip route add default via {gateway}")

    def home_and_office(self, left="easy", right="easy"):
        """The picture at the head of this file."""
        self.core()
        self.space("srv")
        self.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        self.nat("nat1", "10.50.1.1", "192.168.1.1/24", left)
        self.host("laptop", "192.168.1.10/24", "nat1", "192.168.1.1")
        self.nat("nat2", "10.50.2.1", "192.168.2.1/24", right)
        self.host("router", "192.168.2.10/24", "nat2", "192.168.2.1")
        self.run("router", "sysctl -qw net.ipv4.ip_forward=1")
        self.space("lanhost")
        self.veth("router", "lan0", "lanhost", "eth0")
        self.run("router", "ip addr add 192.168.50.1/24 dev lan0")
        self.run("lanhost", "ip addr add 192.168.50.20/24 dev eth0")
        self.run("lanhost", "ip route add default via 192.168.50.1")

    def add_v6(self):
        """Gives home_and_office IPv6 too: no address translation, firewalls on both routers that let only answers in."""
        self.run("srv", "ip addr add 2001:db8:50::2/64 dev eth0 nodad")
        for n, host in ((1, "laptop"), (2, "router")):
            self.run(f"nat{n}", "sysctl -qw net.ipv6.conf.all.forwarding=1")
            self.run(f"nat{n}", f"ip addr add 2001:db8:50::1{n}/64 dev wan nodad")
            self.run(f"nat{n}", f"ip addr add 2001:db8:{n}::1/64 dev lan nodad")
            self.run(f"nat{n}", f"ip route add 2001:db8:{3 - n}::/64 via 2001:db8:50::1{3 - n}")
            for chain in ("INPUT", "FORWARD"):
                self.run(f"nat{n}", f"ip6tables -A {chain} -i wan -m conntrack --ctstate NEW -j DROP")
            self.run("srv", f"ip route add 2001:db8:{n}::/64 via 2001:db8:50::1{n}")
            self.run(host, f"ip addr add 2001:db8:{n}::10/64 dev eth0 nodad")
            self.run(host, f"ip route add default via 2001:db8:{n}::1")

    def drop_v4(self):
        """Takes IPv4 from the underlay of home_and_office; only the LAN behind the subnet router keeps it."""
        for name, interface in (("srv", "eth0"), ("nat1", "wan"), ("nat2", "wan"), ("laptop", "eth0"), ("router", "eth0")):
            self.run(name, f"ip -4 addr flush dev {interface}")

    def flat(self, *names):
        """Server and hosts side by side on the core, without NAT: 10.50.0.2 and 10.50.3.1, .2, ..."""
        self.core()
        self.space("srv")
        self.uplink("srv", "10.50.0.2/16", "10.50.0.3/16")
        for name in names:
            self.on_core(name)

    def on_core(self, name):
        """A host on the core; returns its address."""
        self.flat_hosts += 1
        address = f"10.50.3.{self.flat_hosts}"
        self.space(name)
        self.uplink(name, f"{address}/16")
        return address

    def host_state(self, space):
        """What a daemon may change on its host, in words that compare equal when nothing was changed."""
        state = {}
        for command in ("ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "iptables-save",
                        "ip6tables-save", "nft list ruleset", "ip -br link", "ip -br addr"):
            # iptables-save fails where nft wrote what it has no words for; the ruleset says it anyway.
            text = self.run(space, command, check=command.startswith("ip") and "save" not in command).stdout
            lines = [re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+| linkdown", "", line).rstrip() for line in text.splitlines()]
            state[command] = [line for line in lines if not line.startswith("#")]
        return state

    # servers --------------------------------------------------------------------------------------------------------
    @staticmethod
    def derp_node(name="900a", region=900, host="10.50.0.2", **fields):
        return {"Name": name, "RegionID": region, "HostName": host, "IPv4": host, "IPv6": "none", "DERPPort": DERP_PORT,
                "STUNPort": STUN_PORT, "InsecureForTests": True, **fields}

    @staticmethod
    def derp_regions(*regions):
        """A map from lists of nodes, one list per region; the first is called lab, the others lab2, lab3, ..."""
        out = {}
        for i, nodes in enumerate(regions):
            region, suffix = nodes[0]["RegionID"], "" if i == 0 else str(i + 1)
            out[str(region)] = {"RegionID": region, "RegionCode": f"lab{suffix}", "RegionName": f"Lab DERP {suffix}".strip(), "Nodes": nodes}
        return {"Regions": out}

    def derp_map(self, **node):
        return self.derp_regions([self.derp_node(**node)])

    def derper(self, binary=None, space="srv", host="10.50.0.2", args=(), bind="", port=DERP_PORT, stun=STUN_PORT, tls=True):
        binary = binary or OURS / "derper"
        certs = self.dir / "certs"
        certs.mkdir(exist_ok=True)
        secure = ["-http-port", "-1", "-hostname", host, "-certmode", "manual", "-certdir", certs] if tls else ["-http-port", "-1"]
        p = self.start(space, [binary, "-a", f"{bind}:{port}", *secure, "-stun", "-stun-port", stun,
                               "-c", self.dir / f"derper-{host}-{port}.key", *args], label=f"derper-{host}-{self.count}")
        wait_for("derper listens", lambda: f"{bind or '*'}:{port} " in self.run(space, "ss -ltnH").stdout
                 or f":{port} " in self.run(space, "ss -ltnH").stdout and not bind)
        return p

    def certificate_hash(self, host="10.50.0.2"):
        """The hash of a relay's certificate as the relay map pins it."""
        der = ssl.PEM_cert_to_DER_cert((self.dir / "certs" / f"{host}.crt").read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n")
        return "sha256-raw:" + hashlib.sha256(der).hexdigest()

    def listening(self, space, port):
        return f":{port} " in self.run(space, "ss -ltnH").stdout

    def control(self, args=(), derp_map=None, prefix="100.64.0.0/10", v6="fd7a:115c:a1e0::/48", listen=f"10.50.0.2:{CONTROL_PORT}"):
        """The lab's own control server (tests/lab)."""
        path = self.dir / "derpmap.json"
        path.write_text(json.dumps(derp_map or self.derp_map()))
        p = self.start("srv", [OURS / "lab-control", "--listen", listen, "--derp-map", path, "--prefix", prefix,
                               "--v6", v6, "--approve-routes", *args], label=f"control-{self.count}")
        wait_for("control listens", lambda: self.listening("srv", listen.rsplit(":", 1)[1]))
        return p

    def testcontrol(self, derp_map=None, args=()):
        """The control server that the original project tests with."""
        path = self.dir / "derpmap.json"
        path.write_text(json.dumps(derp_map or self.derp_map()))
        p = self.start("srv", [ORIGINAL / "testcontrol", "-listen", f"10.50.0.2:{CONTROL_PORT}", "-derp-map", path, *args], label="control")
        wait_for("testcontrol listens", lambda: self.listening("srv", CONTROL_PORT))
        return p

    url = f"http://10.50.0.2:{CONTROL_PORT}"

    def tell_control(self, path):
        """A command for lab-control, such as /lab/expire?id=1 (tests/lab/README.md)."""
        return self.run("srv", ["curl", "-sS", "-f", "-X", "POST", f"{self.url}{path}"])

    def tell_nodes(self, message, how="raw"):
        """lab-control says this to all nodes. `message`: a map message, or bytes of a whole frame with how=frame."""
        self.count += 1
        path = self.dir / f"message-{self.count}"
        path.write_bytes(message if isinstance(message, bytes) else json.dumps(message).encode())
        self.tell_control(f"/lab/{how}?file={path}")

    def certificate(self, address="10.50.0.2", kind="IP"):
        """A self-signed certificate for an address (or, with kind DNS, a name); returns the paths of certificate and key."""
        cert, key = self.dir / f"tls-{address}.crt", self.dir / f"tls-{address}.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                        f"/CN={address}", "-addext", f"subjectAltName={kind}:{address}", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        return cert, key

    def authority(self, *names):
        """A root, and a certificate for IP:address and DNS:name signed by it, as an operator has from a public one: root.crt, leaf.crt,
        leaf.key and fullchain.pem; returns their folder."""
        d = self.dir / "ca"
        d.mkdir()

        def openssl(*args):
            subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key, "-days", 90, "-subj", "/CN=Lab root", "-keyout", d / "root.key", "-out", d / "root.crt")
        openssl("req", *key, "-subj", "/CN=relay", "-keyout", d / "leaf.key", "-out", d / "leaf.csr")
        (d / "ext").write_text(f"subjectAltName={','.join(names)}\n")
        openssl("x509", "-req", "-in", d / "leaf.csr", "-CA", d / "root.crt", "-CAkey", d / "root.key", "-days", 90, "-extfile", d / "ext",
                "-out", d / "leaf.crt")
        (d / "fullchain.pem").write_text((d / "leaf.crt").read_text() + (d / "root.crt").read_text())
        return d

    def relayed_only(self, *hosts):
        """These hosts of flat() hear UDP from the server only: everything between them is relayed."""
        for host in hosts:
            self.run(host, "iptables -t raw -A PREROUTING -i eth0 -p udp ! -s 10.50.0.0/24 -j DROP")

    def shim(self, name, source):
        """A library for LD_PRELOAD, built from C; its path."""
        (self.dir / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self.dir / f"{name}.so", self.dir / f"{name}.c", "-ldl"], check=True)
        return self.dir / f"{name}.so"

    def node(self, space, binaries=OURS, **kw):
        return Node(self, space, pathlib.Path(binaries), **kw)

    def pair(self, a, b, others=OURS):
        """Two nodes that have joined; the first one is ours and knows the second, which runs `others`."""
        nodes = self.node(a).start(), self.node(b, others).start()
        for n in nodes:
            n.join()
        nodes[0].wait_peer(nodes[1])
        return nodes

    def laptop_and_router(self, left=OURS, right=OURS, env=None):
        """Nodes on both, running and knowing each other."""
        a, b = self.node("laptop", left, env=env).start(), self.node("router", right, env=env).start()
        b.join()
        a.join()
        a.wait_peer(b)
        b.wait_peer(a)
        return a, b

    def page(self, space="lanhost", port=80, text="hello from the LAN\n"):
        """A web server; returns the process."""
        folder = self.dir / f"page-{space}"
        folder.mkdir(exist_ok=True)
        (folder / "index.html").write_text(text)
        p = self.start(space, ["python3", "-m", "http.server", port, "--directory", folder], label=f"page-{space}")
        wait_for("page server listens", lambda: self.listening(space, port))
        return p

    def fetch(self, space, url, timeout=5):
        return self.run(space, ["python3", "-c",
                                "import sys,urllib.request as u; print(u.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read().decode(), end='')",
                                url, timeout], check=False, timeout=timeout + 5)

    def close(self):
        for p in self.processes:
            if p.popen.poll() is None:
                p.popen.kill()
        for p in self.processes:
            p.popen.wait()
        for name in self.spaces:
            subprocess.run(["ip", "netns", "del", self.full(name)], check=False, capture_output=True)
        if not os.environ.get("KEEP_LAB"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            for p in self.processes:
                print(f"--- {p.log.name}\n{p.text()[-4000:]}")
        self.close()


class Node:
    """One tailscaled with its CLI in a namespace. `binaries` is a folder with tailscaled and tailscale (ours or the original's)."""

    def __init__(self, lab, space, binaries, tun="tailscale0", port=41641, name=None, env=None, cli=None):
        self.lab, self.space, self.binaries, self.tun, self.port, self.env = lab, space, binaries, tun, port, env
        self.name = name or space
        self.dir = lab.dir / f"node-{self.name}"
        self.dir.mkdir(exist_ok=True)
        self.socket = self.dir / "tailscaled.sock"
        self.cli_path = pathlib.Path(cli) if cli else binaries / "tailscale"
        self.daemon = None

    def launch(self, *args, wrap=()):
        """Starts the daemon without waiting for it; `wrap` is a command to run it under."""
        self.daemon = self.lab.start(self.space, [*wrap, self.binaries / "tailscaled", f"--statedir={self.dir}", f"--socket={self.socket}",
                                                  f"--port={self.port}", f"--tun={self.tun}", "--no-logs-no-support", *args],
                                     label=f"tailscaled-{self.name}-{self.lab.count}", env=self.env)
        return self.daemon

    def refuses(self, *args, wrap=()):
        """Starts the daemon, which must end by itself; returns its exit code and its lines without the greeting and the time stamps."""
        process = self.launch(*args, wrap=wrap)
        code = process.popen.wait(10)
        lines = [re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", line) for line in process.text().splitlines()]
        return code, [line for line in lines if not line.startswith("Program starting: v")]

    def start(self, *args, wrap=()):
        self.launch(*args, wrap=wrap)
        wait_for("the local API answers", lambda: self.alive() and self.cli("status", "--json", check=False).returncode == 0)
        return self

    def alive(self):
        if self.daemon.popen.poll() is not None:
            raise Failure(f"tailscaled of {self.name} ended with {self.daemon.popen.returncode}\n{self.daemon.text()[-3000:]}")
        return True

    def cli(self, *args, check=True, timeout=60):
        return self.lab.run(self.space, [self.cli_path, f"--socket={self.socket}", *args], check=check, timeout=timeout)

    def up(self, *args, check=True, timeout=60):
        dns = [] if any(str(a).startswith("--accept-dns") for a in args) else ["--accept-dns=false"]
        return self.cli("up", f"--login-server={self.lab.url}", *dns, *args, check=check, timeout=timeout)

    def status(self):
        return json.loads(self.cli("status", "--json").stdout)

    def ip(self):
        return self.cli("ip", "-4").stdout.strip()

    def join(self, *args, timeout=30):
        """up, and the time it took in seconds."""
        start = time.monotonic()
        self.up(*args, timeout=timeout)
        return time.monotonic() - start

    def wait_peer(self, other, timeout=10):
        return wait_for(f"{self.name} knows {other.name}", lambda: self.peer(other.ip()), timeout)

    def ping_through(self, ip, count=200, interval=0.05, size=56):
        """System pings through the tunnel in the background; see PingRun."""
        return PingRun(self, ip, count, interval, size)

    def peer(self, ip):
        for p in (self.status().get("Peer") or {}).values():
            if ip in (p.get("TailscaleIPs") or []):
                return p
        return None

    def direct(self, ip):
        p = self.peer(ip)
        return p and p.get("CurAddr")

    def stop(self, sig=signal.SIGTERM):
        return self.daemon.stop(sig)


class PingRun:
    """`ping` of the system; answers as a list of (sequence number, seconds since start)."""

    def __init__(self, node, ip, count, interval, size):
        self.count, self.interval, self.began = count, interval, time.time()
        self.process = node.lab.start(node.space, ["ping", "-D", "-n", "-W", "2", "-s", size, "-i", interval, "-c", count, ip],
                                      label=f"ping-{node.name}-{node.lab.count}")

    def finish(self):
        self.process.popen.wait(timeout=self.count * 1.0 + 30)
        return self

    def answers(self):
        found = re.findall(r"\[(\d+\.\d+)\] \d+ bytes from .*?icmp_seq=(\d+)", self.process.text())
        return [(int(seq), float(at) - self.began) for at, seq in found]

    @property
    def missing(self):
        """Numbers of the packets without an answer."""
        return sorted(set(range(1, self.count + 1)) - {seq for seq, _ in self.answers()})

    @property
    def lost(self):
        return len(self.missing)

    def sent(self):
        """Number of the packet that is being sent about now."""
        return int((time.time() - self.began) / self.interval) + 1

    def back_after(self, moment):
        """Seconds from `moment` (time.time()) to the first answer after it."""
        return min((at + self.began - moment for _, at in self.answers() if at + self.began > moment), default=float("inf"))

    @property
    def longest_gap(self):
        times = [0.0] + [at for _, at in self.answers()]
        return max((b - a for a, b in zip(times, times[1:])), default=float("inf")) if len(times) > 1 else float("inf")
