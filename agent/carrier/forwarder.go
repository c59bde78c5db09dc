package carrier

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"

	"orch/agent/meshrelay"
	"orch/agent/sockets"
)

// forwarder has the relay of the mesh's datagrams, from when it is needed.
type forwarder struct {
	sockets *sockets.Set
	log     *slog.Logger
	file    string // what a successor should know

	mu    sync.Mutex
	relay *meshrelay.Relay // nil: not needed yet
	port  uint32           // where it should listen; 0: not known yet
	conn  *net.UDPConn
	ended bool
	said  string // why it doesn't work
}

// serve replaces the nodes that are served, by their public keys in base64, at a
// UDP port; failing is told, and doesn't keep anything else.
func (f *forwarder) serve(ctx context.Context, port uint32, keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.relay == nil && len(keys) == 0 {
		return
	}
	if f.relay == nil {
		f.relay = meshrelay.New()
	}
	var all []meshrelay.Key
	for _, text := range keys {
		if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) == len(meshrelay.Key{}) {
			all = append(all, meshrelay.Key(b))
		}
	}
	f.relay.Serve(all)
	f.port = port
	f.listen(ctx)
}

// again listens, if it should and could not.
func (f *forwarder) again(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen(ctx)
}

// listen does so, if it should; f.mu is held.
func (f *forwarder) listen(ctx context.Context) {
	if f.ended || f.conn != nil || f.port == 0 {
		return
	}
	conn, err := f.sockets.ListenPacket(ctx, "udp", ":"+strconv.FormatUint(uint64(f.port), 10), false)
	if err != nil {
		if text := "it doesn't relay between nodes behind NAT: " + err.Error(); text != f.said {
			f.said = text
			f.log.Error("nodes behind NAT aren't relayed between; trying again", "error", err)
		}
		return
	}
	f.said, f.conn = "", conn
	context.AfterFunc(ctx, func() { conn.Close() })
	go func() { // ends with conn
		if err := f.relay.Run(conn); ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			f.log.Error("nodes behind NAT aren't relayed between any more", "error", err)
		}
	}()
}

// trouble says why nodes aren't relayed between; "" if all is well.
func (f *forwarder) trouble() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said
}

// end leaves it to the successor.
func (f *forwarder) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.conn != nil {
		f.conn.Close()
	}
}

// write leaves what is known to a successor.
func (f *forwarder) write() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.relay == nil {
		return
	}
	text, err := f.relay.Known()
	if err == nil {
		err = os.WriteFile(f.file, text, 0o600)
	}
	if err != nil {
		f.log.Warn("nodes behind NAT have to find each other again", "error", err)
	}
}

// read takes what a carrier before has known.
func (f *forwarder) read() {
	text, err := os.ReadFile(f.file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relay = meshrelay.New()
	if err == nil {
		err = errors.Join(f.relay.Learn(text), os.Remove(f.file))
	}
	if err != nil {
		f.log.Warn("nodes behind NAT have to find each other again", "error", err)
	}
}
