// SPDX-License-Identifier: BSD-3-Clause

// wg-original runs the original userspace WireGuard on a TUN, with hooks for what would take minutes or 2^60 packets.
// A line on the control socket is a command, answered by one line:
//
//	get                  the device in its own configuration language, lines joined by ";"
//	set KEY=VALUE;...    the same language
//	age SECONDS          the sessions of the peer, and its last handshake, become that much older
//	counter N            the session in use goes on with this counter
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	name := flag.String("tun", "wg0", "interface")
	mtu := flag.Int("mtu", 1420, "MTU of the interface")
	key := flag.String("key", "", "private key, hex; a throw-away one, it shows in the list of processes")
	peer := flag.String("peer", "", "public key of the peer, hex")
	allowed := flag.String("allowed", "", "prefixes of the peer, with commas")
	endpoint := flag.String("endpoint", "", "where the peer is")
	port := flag.Int("port", 0, "UDP port")
	control := flag.String("control", "", "path of the control socket")
	flag.Parse()

	t, err := tun.CreateTUN(*name, *mtu)
	must(err)
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelVerbose, ""))
	config := fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\n", *key, *port, *peer)
	for _, prefix := range strings.Split(*allowed, ",") {
		config += "allowed_ip=" + prefix + "\n"
	}
	if *endpoint != "" {
		config += "endpoint=" + *endpoint + "\n"
	}
	must(d.IpcSet(config))
	must(d.Up())
	var pk device.NoisePublicKey
	must(pk.FromHex(*peer))

	l, err := net.Listen("unix", *control)
	must(err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, d, pk)
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	select {
	case <-stop:
	case <-d.Wait():
	}
	d.Close()
}

func serve(c net.Conn, d *device.Device, pk device.NoisePublicKey) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		answer := "ok"
		var err error
		switch command {
		case "get":
			answer, err = d.IpcGet()
			answer = strings.ReplaceAll(strings.TrimSpace(answer), "\n", ";")
		case "set":
			err = d.IpcSet(strings.ReplaceAll(argument, ";", "\n") + "\n")
		case "age":
			var seconds int64
			seconds, err = strconv.ParseInt(argument, 10, 64)
			age := func(at unsafe.Pointer) {
				*(*time.Time)(at) = (*time.Time)(at).Add(-time.Duration(seconds) * time.Second)
			}
			// In this order: a packet in between must not find an old session and a handshake of just now.
			if p := d.LookupPeer(pk); p != nil {
				age(field(reflect.ValueOf(p).Elem().FieldByName("handshake"), "lastSentHandshake"))
			}
			for _, kp := range keypairs(d, pk) {
				age(field(kp, "created"))
			}
		case "counter":
			var n uint64
			n, err = strconv.ParseUint(argument, 10, 64)
			if kps := keypairs(d, pk); len(kps) > 0 {
				(*atomic.Uint64)(field(kps[0], "sendNonce")).Store(n)
			} else {
				err = fmt.Errorf("no session")
			}
		default:
			err = fmt.Errorf("unknown command")
		}
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Fprintln(c, answer)
	}
}

// keypairs: the current session and the previous one, those that exist. The package has no door for this.
func keypairs(d *device.Device, pk device.NoisePublicKey) []reflect.Value {
	var out []reflect.Value
	p := d.LookupPeer(pk)
	if p == nil {
		return out
	}
	slots := reflect.ValueOf(p).Elem().FieldByName("keypairs")
	for _, name := range []string{"current", "previous"} {
		if kp := slots.FieldByName(name); !kp.IsNil() {
			out = append(out, kp.Elem())
		}
	}
	return out
}

func field(v reflect.Value, name string) unsafe.Pointer {
	return unsafe.Pointer(v.FieldByName(name).UnsafeAddr())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
