// Package folder is the data folder of a host: the lock that keeps a second
// orch out, the node's id, its keys, which may be locked, and what it knows
// of its cluster. A Folder's methods are safe for concurrent use.
//
//	lock             the process that has the folder
//	node-id          80 random bits, for ever
//	keys.json        see Keys
//	membership.json  api.Membership: certificate, roots, engines
//	host.json        Settings
//	raft.db, snapshots/   an engine's log
//	format           what the log's entries mean
package folder

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/durable"
)

// Folder is an open data folder.
type Folder struct {
	Dir    string
	ID     string // of the node
	unlock func()
	mine   bool // it is locked for this process

	mu         sync.Mutex
	keys       keyFile
	open       *Keys // nil while they are locked
	unlockKey  UnlockKey
	membership *api.Membership
}

// Open takes dir for this process, and makes what isn't there yet: the id
// and the keys. Its keys may be locked: Keys tells.
func Open(dir string) (f *Folder, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	f = &Folder{Dir: dir}
	if f.unlock, err = Lock(dir); err != nil {
		return nil, err
	}
	f.mine = true
	if err := f.read(); err != nil {
		f.unlock()
		return nil, err
	}
	return f, nil
}

// Read opens a folder that another process may have, to look at it only.
// Nothing is made that isn't there.
func Read(dir string) (*Folder, error) {
	f := &Folder{Dir: dir, unlock: func() {}}
	for _, name := range []string{"node-id", "keys.json"} {
		if _, err := os.Stat(f.path(name)); err != nil {
			return nil, fmt.Errorf("%s is no data folder of orch: %w", dir, err)
		}
	}
	return f, f.read()
}

// Close gives the folder free.
func (f *Folder) Close() { f.unlock() }

func (f *Folder) path(name string) string { return filepath.Join(f.Dir, name) }

func (f *Folder) read() (err error) {
	if _, err := os.Stat(f.path("ca.key")); err == nil {
		return fmt.Errorf("%s was made by an orch that knew clusters of one engine only: move it away and deploy its stacks again", f.Dir)
	}
	if err := f.checkFormat(); err != nil {
		return err
	}
	if f.ID, err = identity(f.path("node-id")); err != nil {
		return err
	}
	if err := f.readKeys(); err != nil {
		return err
	}
	b, err := os.ReadFile(f.path("membership.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read what this host knows of its cluster: %w", err)
	}
	m := &api.Membership{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s is damaged (%w): restore it from a backup, or leave the cluster and join again", f.path("membership.json"), err)
	}
	f.membership = m
	return nil
}

// format is raised when entries of the log come to mean something else.
const format = "2"

// checkFormat refuses a log of entries that would be read wrongly, and marks
// a folder that has none yet.
func (f *Folder) checkFormat() error {
	b, err := os.ReadFile(f.path("format"))
	switch {
	case err == nil && strings.TrimSpace(string(b)) == format:
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("cannot read the data folder's format: %w", err)
	}
	if _, err := os.Stat(f.path("raft.db")); err == nil {
		return fmt.Errorf("the log in %s is of format %q, this orch reads %q: move the folder away, make the cluster anew and deploy its stacks again", f.Dir, cmp.Or(strings.TrimSpace(string(b)), "1"), format)
	}
	if !f.mine {
		return nil
	}
	if err := durable.WriteFile(f.path("format"), []byte(format+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot mark the data folder's format: %w", err)
	}
	return nil
}

// Membership is what the host knows of its cluster; nil where it is in none.
func (f *Folder) Membership() *api.Membership {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.membership
}

// SetMembership keeps what a cluster said. A message without a certificate
// leaves that as it is.
func (f *Folder) SetMembership(m *api.Membership) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m = proto.CloneOf(m)
	m.Renew = false
	if len(m.Certificate) == 0 {
		m.Certificate = f.membership.GetCertificate()
	}
	if len(m.Engines) == 0 {
		m.Engines = f.membership.GetEngines()
	}
	if proto.Equal(m, f.membership) {
		return nil
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.path("membership.json"), b, 0o600); err != nil {
		return fmt.Errorf("cannot keep what the cluster said: %w", err)
	}
	f.membership = m
	return nil
}

// Settings are what an operator said of this host, so that its daemon starts
// the same way each time.
type Settings struct {
	Listen    string `json:"listen,omitempty"`    // host:port of its engine, if it is or becomes one
	Advertise string `json:"advertise,omitempty"` // host:port where others reach it
	// Alone says that the other engines are lost: they are removed when this
	// one leads.
	Alone bool `json:"alone,omitempty"`
}

// Settings are those that were kept last.
func (f *Folder) Settings() (Settings, error) {
	var s Settings
	b, err := os.ReadFile(f.path("host.json"))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("cannot read this host's settings in %s: %w", f.path("host.json"), err)
	}
	return s, nil
}

// SetSettings keeps them.
func (f *Folder) SetSettings(s Settings) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.path("host.json"), b, 0o600); err != nil {
		return fmt.Errorf("cannot keep this host's settings: %w", err)
	}
	return nil
}

// Credentials are what the node shows. The keys must be open.
func (f *Folder) Credentials() ca.Credentials {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := ca.Credentials{Certificate: f.membership.GetCertificate(), Roots: f.membership.GetRoots(), Bridges: f.membership.GetBridges()}
	if f.open != nil {
		c.Key = f.open.Node
	}
	return c
}

// Leave forgets the cluster: the log, the keys, the id. The folder stays
// locked; what belongs to others in it stays.
func (f *Folder) Leave() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed error
	for _, name := range []string{"membership.json", "keys.json", "node-id", "host.json", "raft.db", "snapshots"} {
		failed = errors.Join(failed, os.RemoveAll(f.path(name)))
	}
	if failed != nil {
		return fmt.Errorf("cannot forget the cluster: %w", failed)
	}
	f.membership = nil
	return f.readFresh()
}

// ForgetLog removes an engine's log: the node is an engine no longer, or
// gets the log anew.
func (f *Folder) ForgetLog() error {
	if err := errors.Join(os.RemoveAll(f.path("raft.db")), os.RemoveAll(f.path("snapshots"))); err != nil {
		return fmt.Errorf("cannot remove the engine's log: %w", err)
	}
	return f.UpdateKeys(func(k *Keys) { k.Log, k.Data, k.Authority, k.Certificate = false, nil, nil, nil })
}

// HasLog says whether an engine's log is there.
func (f *Folder) HasLog() bool {
	_, err := os.Stat(f.path("raft.db"))
	return err == nil
}

func (f *Folder) readFresh() (err error) {
	if f.ID, err = identity(f.path("node-id")); err != nil {
		return err
	}
	f.open = nil
	return f.readKeys()
}

// identity reads the node's id, or makes one.
func identity(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(strings.TrimSpace(string(b))) > 0:
		return strings.TrimSpace(string(b)), nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("cannot read the node's id: %w", err)
	}
	id := NewID()
	if err := durable.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot keep the node's id: %w", err)
	}
	return id, nil
}

// NewID is 80 random bits as 16 lower-case letters and digits.
func NewID() string {
	b := make([]byte, 10)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}
