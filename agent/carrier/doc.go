// Package carrier is the process that has a node's published ports, its relay and
// its names: in a process of their own they go on while the agent restarts, or
// isn't there at all. The agent's side (Carrier) starts it and tells it what to
// carry; the process's side (Main) puts ingress, relay and names together.
//
// A carrier of another version is replaced without a pause: its successor gets
// its listening sockets, and it ends with its last connection. So there may be
// several, of which one listens; each has its number, and sockets named after that
// in the folder of the node's carriers.
package carrier

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"

	"orch/agent/detached"
	"orch/engine/api"
)

// arg is the hidden first argument of the process.
const arg = "orch-ingress"

// Is says whether a program called with args (os.Args) is to be a carrier.
func Is(args []string) bool { return detached.Is(args, arg) }

// Wallet is what a carrier shows to other nodes, and how it knows them.
type Wallet interface {
	// Admit replaces the credentials.
	Admit(*api.Admission) error
	Server() *tls.Config
	Client(node string) *tls.Config
	// Node is the id of the node at the other end; "" if it is none.
	Node(*tls.ConnectionState) string
}

// Of the sockets of a carrier one is asked, the other gives listening sockets away.
func asked(number int) string { return fmt.Sprintf("%d.sock", number) }
func gives(number int) string { return fmt.Sprintf("%d.give", number) }

// numbered is the carrier whose socket this is; ok is false if it is none.
func numbered(name string) (number int, ok bool) {
	text, is := strings.CutSuffix(name, ".sock")
	number, err := strconv.Atoi(text)
	return number, is && err == nil && number > 0
}

// url is asked over a socket.
const url = "http://carrier"
