// SPDX-License-Identifier: BSD-3-Clause

// testcontrol serves the control server that the original project tests itself with, so that our programs meet a
// server nobody here wrote. Control routes: GET /lab/approve?url=AUTHURL finishes an interactive login,
// GET /lab/routes?node=NODEKEY&routes=CIDR,CIDR approves subnet routes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address:port")
	derpMap := flag.String("derp-map", "", "JSON file with the DERP map")
	authKey := flag.String("auth-key", "", "the only accepted auth key; empty: none needed")
	login := flag.Bool("require-login", false, "logins without a key need a visit to the AuthURL")
	approve := flag.Bool("approve-routes", true, "approve every advertised route")
	flag.Parse()

	raw, err := os.ReadFile(*derpMap)
	if err != nil {
		log.Fatal(err)
	}
	dm := new(tailcfg.DERPMap)
	if err := json.Unmarshal(raw, dm); err != nil {
		log.Fatal(err)
	}
	base := "http://" + *listen
	control := &testcontrol.Server{
		DERPMap:          dm,
		RequireAuth:      *login,
		RequireAuthKey:   *authKey,
		ExplicitBaseURL:  base,
		AllNodesSameUser: true,
		AllOnline:        true,
		MagicDNSDomain:   "tail.test",
		Logf:             log.Printf,
	}
	if *approve {
		go approveRoutes(control)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/auth/"):
			fmt.Fprintln(w, control.CompleteAuth(base+r.URL.Path))
		case r.URL.Path == "/key" || r.URL.Path == "/ts2021" || r.URL.Path == "/generate_204":
			control.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	log.Printf("testcontrol on %s", base)
	log.Fatal(http.ListenAndServe(*listen, handler))
}

// approveRoutes turns advertised routes into served ones.
func approveRoutes(control *testcontrol.Server) {
	var mu sync.Mutex
	done := map[key.NodePublic]string{}
	for range time.Tick(50 * time.Millisecond) {
		for _, n := range control.AllNodes() {
			if !n.Hostinfo.Valid() {
				continue
			}
			routes := n.Hostinfo.RoutableIPs().AsSlice()
			text := fmt.Sprint(routes)
			mu.Lock()
			changed := done[n.Key] != text && (len(routes) > 0 || done[n.Key] != "")
			done[n.Key] = text
			mu.Unlock()
			if changed {
				control.SetSubnetRoutes(n.Key, append([]netip.Prefix{}, routes...))
			}
		}
	}
}
