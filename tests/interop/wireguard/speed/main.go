// SPDX-License-Identifier: BSD-3-Clause

// crypto-original measures what tests/bench/crypto_speed.cc measures, for the original's cryptography: Go's ChaCha20-Poly1305, which knows
// one packet at a time, and the handshakes of the original userspace WireGuard (without their MACs, which no exported function adds).
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"sort"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

const chunks = 41

// measure: ns per turn, of chunks of some 2 ms the best but a few.
func measure(turn func()) float64 {
	run := func(turns int) float64 {
		begin := time.Now()
		for i := 0; i < turns; i++ {
			turn()
		}
		return float64(time.Since(begin))
	}
	turns := 1
	for run(turns) < 2e6 {
		turns *= 2
	}
	var found []float64
	for i := 0; i < chunks; i++ {
		found = append(found, run(turns)/float64(turns))
	}
	sort.Float64s(found)
	return found[chunks/10]
}

func packets(n int, out map[string]float64) {
	aead, err := chacha20poly1305.New(make([]byte, 32))
	must(err)
	nonce, memory, opened := make([]byte, 12), make([]byte, n+16), make([]byte, n)
	aead.Seal(memory[:0], nonce, memory[:n], nil)
	out[fmt.Sprintf("open_%d", n)] = measure(func() {
		_, err := aead.Open(opened[:0], nonce, memory, nil)
		must(err)
	})
	out[fmt.Sprintf("seal_%d", n)] = measure(func() { aead.Seal(memory[:0], nonce, memory[:n], nil) })
}

// side: a device that is never up, and its view of the other one.
func side(own byte, other byte) (*device.Device, *device.Peer) {
	d := device.NewDevice(tuntest.NewChannelTUN().TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	key := func(seed byte) (k device.NoisePrivateKey, public device.NoisePublicKey) {
		k[1], k[31] = seed, 64
		copy(public[:], must1(curve25519.X25519(k[:], curve25519.Basepoint)))
		return
	}
	private, _ := key(own)
	must(d.SetPrivateKey(private))
	_, public := key(other)
	return d, must1(d.NewPeer(public))
}

func handshakes() float64 {
	a, toB := side(1, 2)
	b, toA := side(2, 1)
	// Only peers of a device that is up are answered, and none twice within 20 ms: b must forget when it heard of a last.
	peer := reflect.ValueOf(toA).Elem()
	(*atomic.Bool)(unsafe.Pointer(peer.FieldByName("isRunning").UnsafeAddr())).Store(true)
	seen := peer.FieldByName("handshake")
	stamp := seen.FieldByName("lastTimestamp")
	when := (*time.Time)(unsafe.Pointer(seen.FieldByName("lastInitiationConsumption").UnsafeAddr()))
	forget := unsafe.Slice((*byte)(unsafe.Pointer(stamp.UnsafeAddr())), stamp.Len())
	return measure(func() {
		clear(forget)
		*when = time.Time{}
		initiation := must1(a.CreateMessageInitiation(toB))
		if b.ConsumeMessageInitiation(initiation) == nil {
			log.Fatal("initiation refused")
		}
		response := must1(b.CreateMessageResponse(toA))
		must(toA.BeginSymmetricSession())
		if a.ConsumeMessageResponse(response) == nil {
			log.Fatal("response refused")
		}
		must(toB.BeginSymmetricSession())
	})
}

func main() {
	out := map[string]float64{}
	packets(64, out)
	packets(1280, out)
	out["handshake"] = handshakes()
	must(json.NewEncoder(os.Stdout).Encode(out))
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
