// SPDX-License-Identifier: BSD-3-Clause

// vectors records what the original's own code makes of known keys: disco datagrams, STUN messages, and both directions
// of a session between its relay client and its relay server. The output is tests/vectors/original.json.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go4.org/mem"

	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/disco"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
)

type object map[string]any

// secret makes a clamped private key from a name. Throw-away: whoever reads this has it.
func secret(name string) []byte {
	h := sha256.Sum256([]byte("tailmesh vector " + name))
	h[0] &= 248
	h[31] = h[31]&127 | 64
	return h[:]
}

func main() {
	out := object{
		"note":  "Made by tests/interop/testcontrol/vectors with the packages of tailscale.com v1.102.5; tests/vectors/README.md says more.",
		"disco": recordDisco(),
		"stun":  recordStun(),
		"derp":  recordDerp(),
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	must(e.Encode(out))
}

func recordDisco() object {
	a := key.DiscoPrivateFromRaw32(mem.B(secret("disco a")))
	b := key.DiscoPrivateFromRaw32(mem.B(secret("disco b")))
	node := key.NodePrivateFromRaw32(mem.B(secret("disco node a"))).Public()
	tx := [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	v4, v6 := netip.MustParseAddrPort("192.0.2.7:41641"), netip.MustParseAddrPort("[2001:db8::7]:443")
	common := disco.BindUDPRelayEndpointCommon{VNI: 70000, Generation: 5, RemoteKey: b.Public()}
	copy(common.Challenge[:], secret("challenge"))
	relay := disco.UDPRelayEndpoint{
		ServerDisco:         key.DiscoPrivateFromRaw32(mem.B(secret("disco server"))).Public(),
		ClientDisco:         key.NewSortedPairOfDiscoPublic(a.Public(), b.Public()).Get(),
		LamportID:           1 << 40,
		VNI:                 70000,
		BindLifetime:        30 * time.Second,
		SteadyStateLifetime: 5 * time.Minute,
		AddrPorts:           []netip.AddrPort{v4, v6},
	}
	messages := []struct {
		name string
		m    disco.Message
	}{
		{"ping", &disco.Ping{TxID: tx, NodeKey: node}},
		{"ping with padding", &disco.Ping{TxID: tx, NodeKey: node, Padding: 50}},
		{"pong v4", &disco.Pong{TxID: tx, Src: v4}},
		{"pong v6", &disco.Pong{TxID: tx, Src: v6}},
		{"call me maybe", &disco.CallMeMaybe{MyNumber: []netip.AddrPort{v4, v6}}},
		{"bind relay endpoint", &disco.BindUDPRelayEndpoint{BindUDPRelayEndpointCommon: common}},
		{"bind relay endpoint challenge", &disco.BindUDPRelayEndpointChallenge{BindUDPRelayEndpointCommon: common}},
		{"bind relay endpoint answer", &disco.BindUDPRelayEndpointAnswer{BindUDPRelayEndpointCommon: common}},
		{"call me maybe via", &disco.CallMeMaybeVia{UDPRelayEndpoint: relay}},
		{"allocate relay endpoint request", &disco.AllocateUDPRelayEndpointRequest{ClientDisco: relay.ClientDisco, Generation: 77}},
		{"allocate relay endpoint response", &disco.AllocateUDPRelayEndpointResponse{Generation: 77, UDPRelayEndpoint: relay}},
	}
	var list []object
	for _, m := range messages {
		payload := m.m.AppendMarshal(nil)
		datagram := a.Public().AppendTo([]byte(disco.Magic))
		datagram = append(datagram, a.Shared(b.Public()).Seal(payload)...)
		list = append(list, object{"name": m.name, "payload": hex.EncodeToString(payload), "datagram": hex.EncodeToString(datagram)})
	}
	return object{
		"from":      hex.EncodeToString(secret("disco a")),
		"to":        hex.EncodeToString(secret("disco b")),
		"node_key":  node.String(),
		"server":    hex.EncodeToString(secret("disco server")),
		"challenge": hex.EncodeToString(secret("challenge")),
		"v4":        v4.String(),
		"v6":        v6.String(),
		"messages":  list,
	}
}

func recordStun() object {
	tx := stun.TxID{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}
	var responses []object
	for _, mapped := range []string{"198.51.100.9:54321", "[2001:db8::9]:1"} {
		r := stun.Response(tx, netip.MustParseAddrPort(mapped))
		responses = append(responses, object{"mapped": mapped, "hex": hex.EncodeToString(r)})
	}
	return object{"tx": hex.EncodeToString(tx[:]), "request": hex.EncodeToString(stun.Request(tx)), "responses": responses}
}

// tap remembers what goes both ways.
type tap struct {
	net.Conn
	mu             sync.Mutex
	received, sent bytes.Buffer
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received.Write(b[:n])
	return n, err
}

func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.sent.Write(b)
	t.mu.Unlock()
	return t.Conn.Write(b)
}

func recordDerp() object {
	serverKey := key.NodePrivateFromRaw32(mem.B(secret("derp server")))
	server := derpserver.New(serverKey, func(string, ...any) {})
	defer server.Close()
	connect := func(name string) (*derp.Client, *tap) {
		here, there := net.Pipe()
		go server.Accept(context.Background(), there, bufio.NewReadWriter(bufio.NewReader(there), bufio.NewWriter(there)), "192.0.2.1:1")
		t := &tap{Conn: here}
		c, err := derp.NewClient(key.NodePrivateFromRaw32(mem.B(secret(name))), t, bufio.NewReadWriter(bufio.NewReader(t), bufio.NewWriter(t)), func(string, ...any) {})
		must(err)
		m, err := c.Recv()
		must(err)
		if _, ok := m.(derp.ServerInfoMessage); !ok {
			log.Fatalf("%T instead of the server's info", m)
		}
		return c, t
	}
	client, t := connect("derp client")
	peer, _ := connect("derp peer")
	got := make(chan derp.ReceivedMessage, 8)
	go func() {
		for {
			m, err := client.Recv()
			if err != nil {
				return
			}
			got <- m
		}
	}()
	want := func(what string, ok func(derp.ReceivedMessage) bool) {
		select {
		case m := <-got:
			if !ok(m) {
				log.Fatalf("%T instead of %s", m, what)
			}
		case <-time.After(5 * time.Second):
			log.Fatalf("no %s", what)
		}
	}
	must(client.NotePreferred(true))
	must(client.Send(peer.PublicKey(), bytes.Repeat([]byte{0x33}, 40)))
	must(peer.Send(client.PublicKey(), bytes.Repeat([]byte{0x77}, 20)))
	want("packet", func(m derp.ReceivedMessage) bool { _, ok := m.(derp.ReceivedPacket); return ok })
	must(client.SendPing([8]byte{1, 2, 3, 4, 5, 6, 7, 8}))
	want("pong", func(m derp.ReceivedMessage) bool { _, ok := m.(derp.PongMessage); return ok })
	stranger := key.NodePrivateFromRaw32(mem.B(secret("derp stranger"))).Public()
	must(client.Send(stranger, append([]byte(disco.Magic), bytes.Repeat([]byte{9}, 60)...)))
	want("peer gone", func(m derp.ReceivedMessage) bool { _, ok := m.(derp.PeerGoneMessage); return ok })
	t.mu.Lock()
	defer t.mu.Unlock()
	return object{
		"server":      hex.EncodeToString(secret("derp server")),
		"client":      hex.EncodeToString(secret("derp client")),
		"peer":        peer.PublicKey().String(),
		"stranger":    stranger.String(),
		"from_client": hex.EncodeToString(t.sent.Bytes()),
		"from_server": hex.EncodeToString(t.received.Bytes()),
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
