# SPDX-License-Identifier: BSD-3-Clause
"""`tailscale netcheck`: the ports of the relays are tried too, and each cause is named with its port."""
import json
import pathlib
import re
import subprocess

from lab import DERP_PORT, STUN_PORT, Lab, wait_for

HERE = pathlib.Path(__file__).resolve().parent
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def certificates(folder):
    """root.crt, and by name (chain, key): full, leaf (the intermediate is missing), other (another name), old (expired), self (self-signed)."""
    folder.mkdir()

    def authority(name, issuer=None):
        ext = folder / f"{name}.ext"
        ext.write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
        signer = ["-CA", folder / f"{issuer}.crt", "-CAkey", folder / f"{issuer}.key"] if issuer else ["-signkey", folder / f"{name}.key"]
        openssl("x509", "-req", "-in", folder / f"{name}.csr", *signer, "-days", 30, "-extfile", ext, "-out", folder / f"{name}.crt")

    def leaf(name, san, *dates):
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
        config = folder / f"{name}.cnf"
        config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/{name}.db\nserial={folder}/{name}.srl\nnew_certs_dir={folder}\n"
                          f"certificate={folder}/inter.crt\nprivate_key={folder}/inter.key\ndefault_md=sha256\npolicy=p\nx509_extensions=x\n"
                          f"unique_subject=no\n[p]\ncommonName=supplied\n[x]\nsubjectAltName={san}\n")
        (folder / f"{name}.db").write_text("")
        (folder / f"{name}.srl").write_text(f"{abs(hash(name)) % 10**8 + 10**8}"[:8] + "\n")
        openssl("ca", "-batch", "-notext", "-config", config, "-in", folder / f"{name}.csr", "-out", folder / f"{name}.crt", *(dates or ("-days", 20)))
        (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / "inter.crt").read_text())

    authority("root")
    authority("inter", "root")
    leaf("full", "IP:10.50.0.2")
    leaf("other", "DNS:relay.example")
    leaf("old", "IP:10.50.0.2", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    openssl("req", "-x509", *KEY, "-days", 20, "-subj", "/CN=self", "-addext", "subjectAltName=IP:10.50.0.2", "-keyout", folder / "self.key",
            "-out", folder / "self.pem")
    found = {name: (folder / f"{name}.pem", folder / f"{name}.key") for name in ("full", "other", "old", "self")}
    found["leaf"] = (folder / "full.crt", folder / "full.key")
    return found


def test_every_cause_is_named_with_its_port():
    with Lab("causes") as lab:
        lab.flat("a")
        lab.derper()
        found = certificates(lab.dir / "pki")
        ports = {name: 20001 + i for i, name in enumerate(sorted(found))}
        servers = lab.start("srv", [HERE / "tls_servers.py", "10.50.0.2", *(f"{ports[n]}:{c}:{k}" for n, (c, k) in found.items()), "20020:-:-"])
        servers.wait_text("ready")
        lab.run("srv", "iptables -A INPUT -p tcp --dport 20031 -j DROP")

        def region(number, port, **fields):
            return [lab.derp_node(name=f"{number}a", region=number, DERPPort=port, STUNPort=-1, InsecureForTests=False, **fields)]
        derp_map = lab.derp_regions([lab.derp_node()], *(region(910 + i, ports[n]) for i, n in enumerate(sorted(found))), region(920, 20020),
                                    region(930, 20030), region(931, 20031),
                                    [lab.derp_node(name="940a", region=940, host="10.50.0.2", STUNPort=20040)],
                                    region(941, DERP_PORT), [lab.derp_node(name="942a", region=942, CertName="sha256-raw:" + "0" * 64,
                                                                           InsecureForTests=False)])
        lab.control(derp_map=derp_map)
        a = lab.node("a", env={"SSL_CERT_FILE": str(lab.dir / "pki/root.crt")}).start()
        a.join()
        report = a.cli("netcheck").stdout
        print(report)
        lines = {m[1]: m[0] for m in re.finditer(r"\t\* DERP port: \S+ 10\.50\.0\.2:(\d+): .*", report)}

        def says(port, *words):
            line = next((m[0] for m in re.finditer(rf"\t\* DERP port: \S+ 10\.50\.0\.2:{port}: (?!upgrade).*", report)), "")
            assert all(w in line for w in words), (port, words, line)
        says(ports["leaf"], "certificate: ", "use fullchain.pem")
        says(ports["other"], "certificate: its certificate is for relay.example, not for 10.50.0.2")
        says(ports["old"], "certificate: its certificate expired on 2021-01-01")
        says(ports["self"], "certificate: self-signed: set InsecureForTests in the map, or better CertName \"sha256-raw:")
        says(20020, "TLS: none on port 20020")
        says(20030, "connection: ", "connection refused", "(nothing listens there")
        says(20031, "connection: ", "timed out", "open TCP 20031")
        assert re.search(rf"10\.50\.0\.2:{ports['full']}: upgrade: .*HTTP 404.* \(is this a derper\?", report), lines.get(str(ports["full"]))
        doctor = a.cli("doctor", check=False).stdout  # says the same of this host
        for words in ("use fullchain.pem", "certificate: its certificate is for relay.example", "expired on 2021-01-01", "certificate: self-signed",
                      "none on port 20020", "connection refused", "timed out"):
            assert words in doctor, (words, doctor)
        # The good relay's port, three times: with a silent STUN port, with a certificate that no map accepts, and with another pin.
        assert re.search(rf"\* DERP port: \S+ 10\.50\.0\.2:{DERP_PORT}: STUN: no answer from 10\.50\.0\.2:20040 \(a firewall\? open UDP 20040", report)
        assert f"CertName \"{lab.certificate_hash()}\"" in report
        assert re.search(r"certificate: .*fingerprint [0-9a-f]{64}, expected 0{64}", report)
        assert "* DERP port: lab 10.50.0.2" not in report, "nothing is said of what works"
        verbose = a.cli("netcheck", "--verbose").stdout
        assert f"\t* DERP port: lab 10.50.0.2:{DERP_PORT}: works, answers in " in verbose and "\t\t- upgrade: server key nodekey:" in verbose, verbose
        ports_json = json.loads(a.cli("netcheck", "--format=json").stdout)["DERPPorts"]
        assert {p["RegionID"]: p["Good"] for p in ports_json}[900] is True
        assert sum(not p["Good"] for p in ports_json) == len(ports_json) - 1


def test_blocked_udp_is_measured_by_https_and_a_captive_portal_found():
    with Lab("portal") as lab:
        lab.home_and_office(left="blocked")
        lab.derper(args=["-http-port", "80"])
        lab.control(derp_map=lab.derp_map(CanPort80=True))
        a = lab.node("laptop").start()
        a.join()
        report = a.cli("netcheck").stdout
        assert "\t* UDP: false\n" in report and "\t* CaptivePortal: false\n" in report, report
        assert re.search(r"\t\t- +lab: +[\d.]+(µs|ms)\b", report), report
        # All of the web leads to a login page.
        page = lab.page("nat1", port=8000, text="Please log in")
        lab.run("nat1", "iptables -t nat -A PREROUTING -i lan -p tcp --dport 80 -j REDIRECT --to-ports 8000")
        report = a.cli("netcheck").stdout
        assert "\t* CaptivePortal: true\n" in report, report
        page.stop()
        again = lab.start("laptop", [a.cli_path, f"--socket={a.socket}", "netcheck", "--every=100ms"], label="every")
        wait_for("a second report", lambda: again.text().count("\nReport:\n") >= 2)
        again.stop()
