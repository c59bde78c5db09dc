package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// hostKeys decides which keys of hosts to accept. A key that is not accepted
// is an error that says what to do; there is no way to accept any.
type hostKeys struct {
	acceptNew bool

	mu sync.Mutex // guards the files: hosts are reached side by side
}

// verifier checks one connection; seen is the key that was accepted.
type verifier struct {
	keys *hostKeys
	t    *target
	name string // host:port, as known_hosts has it
	db   *knownhosts.HostKeyDB
	seen ssh.PublicKey
}

func (k *hostKeys) verifier(t *target) (*verifier, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := &verifier{keys: k, t: t, name: t.address()}
	if t.keyAlias != "" {
		v.name = joinHost(t.keyAlias, 22)
	}
	var err error
	if v.db, err = k.database(t); err != nil {
		return nil, err
	}
	return v, nil
}

func (k *hostKeys) database(t *target) (*knownhosts.HostKeyDB, error) {
	var there []string
	for _, f := range t.known {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	db, err := knownhosts.NewDB(there...)
	if err != nil {
		return nil, fmt.Errorf("cannot read known_hosts: %w", err)
	}
	return db, nil
}

// algorithms are those of the keys that are known: a host that has others,
// too, is asked for one that can be compared.
func (v *verifier) algorithms() []string {
	if v.t.hostKey != "" {
		return nil
	}
	return v.db.HostKeyAlgorithms(v.name)
}

// check is an ssh.HostKeyCallback.
func (v *verifier) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	print := ssh.FingerprintSHA256(key)
	if v.t.hostKey != "" {
		if print != v.t.hostKey {
			return &keyError{fmt.Sprintf("%s has the host key %s, and hostkey=%s pins another: somebody may stand in between; if the host was made anew, correct the inventory", v.t.address(), print, v.t.hostKey)}
		}
		v.seen = key
		return nil
	}
	err := v.db.HostKeyCallback()(v.name, remote, key)
	switch {
	case err == nil:
	case knownhosts.IsHostKeyChanged(err):
		return &keyError{fmt.Sprintf("the host key of %s has CHANGED: it is now %s, and %s has another: somebody may stand in between; if the host was made anew, `ssh-keygen -R %s` forgets the old key",
			v.t.address(), print, strings.Join(v.t.existing(), ", "), quote(knownhosts.Normalize(v.name)))}
	case knownhosts.IsHostUnknown(err) && (v.keys.acceptNew || v.t.acceptNew):
		if err := v.add(key); err != nil {
			return err
		}
	case knownhosts.IsHostUnknown(err):
		return &keyError{fmt.Sprintf("the host key of %s is not known (%s): compare it with `ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` on the host, then --accept-new, or hostkey=%s on its line",
			v.t.address(), print, kind(key), print)}
	default:
		return &keyError{err.Error()}
	}
	v.seen = key
	return nil
}

// add writes a key to the first known_hosts file. Another host's check may
// have written it meanwhile: then it must be the same.
func (v *verifier) add(key ssh.PublicKey) error {
	if len(v.t.known) == 0 {
		return &keyError{"there is no known_hosts file to add the key to: UserKnownHostsFile says none"}
	}
	if db, err := v.keys.database(v.t); err == nil {
		if known := db.HostKeys(v.name); len(known) > 0 {
			if slices.ContainsFunc(known, func(k knownhosts.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }) {
				return nil
			}
			return &keyError{fmt.Sprintf("%s shows two different host keys", v.t.address())}
		}
	}
	path := v.t.known[0]
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot keep the host key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep the host key: %w", err)
	}
	line := knownhosts.Line([]string{v.name}, key) + "\n"
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot keep the host key in %s: %w", path, err)
	}
	return nil
}

func (t *target) existing() []string {
	var there []string
	for _, f := range t.known {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	return there
}

// kind is how sshd's key files are named.
func kind(key ssh.PublicKey) string {
	switch t := key.Type(); {
	case strings.Contains(t, "ed25519"):
		return "ed25519"
	case strings.HasPrefix(t, "ecdsa"):
		return "ecdsa"
	}
	return "rsa"
}

// keyError is that a host's key was refused; no other way is tried then.
type keyError struct{ text string }

func (e *keyError) Error() string { return e.text }
