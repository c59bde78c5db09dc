package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"
)

// target is a host with all that ssh's configuration says about it.
type target struct {
	alias      string // what the configuration calls it
	user       string
	host       string
	port       int
	keyAlias   string // HostKeyAlias: its name in known_hosts
	identities []string
	only       bool // IdentitiesOnly: nothing else that the agent holds
	agent      string
	known      []string // known_hosts files, the first is written to
	acceptNew  bool
	jumps      []string // [user@]host[:port]
	timeout    time.Duration
	alive      time.Duration // 0: no keepalives
	hostKey    string        // pinned
	system     string        // why only the system's ssh can reach it; empty: Go can
	gssapi     bool
}

func (t *target) address() string { return joinHost(t.host, t.port) }

// configuration is what the user's and the system's files say; values of the
// first win.
type configuration struct {
	files []*ssh_config.Config
	fails string // a file that Go's parser can't read, and why
}

// readConfiguration reads file, or, if that is empty, ~/.ssh/config and
// /etc/ssh/ssh_config.
func readConfiguration(file string) (*configuration, error) {
	paths := []string{file}
	if file == "" {
		paths = []string{expand("~/.ssh/config"), "/etc/ssh/ssh_config"}
	}
	c := &configuration{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && file == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read ssh's configuration: %w", err)
		}
		parsed, err := ssh_config.DecodeBytes(text)
		if err != nil {
			c.fails = fmt.Sprintf("%s has what Go can't read: %v", path, err)
			continue
		}
		c.files = append(c.files, parsed)
	}
	return c, nil
}

func (c *configuration) get(alias, key string) string {
	if all := c.all(alias, key); len(all) > 0 {
		return all[0]
	}
	return ""
}

// all are the values of a key, of the user's file first.
func (c *configuration) all(alias, key string) []string {
	var all []string
	for _, f := range c.files {
		values, err := f.GetAll(alias, key)
		if err != nil && c.fails == "" {
			c.fails = err.Error()
		}
		all = append(all, values...)
	}
	return all
}

// resolve is the target that an inventory's host names.
func (c *configuration) resolve(h *Host) *target {
	t := c.lookup(h.User, h.Address, h.Port)
	t.hostKey = h.HostKey
	if h.Key != "" {
		t.identities, t.only = []string{expand(h.Key)}, true
	}
	if h.Jump != "" {
		t.jumps = strings.Split(h.Jump, ",")
	}
	return t
}

// hop is the target that an element of a jump list names.
func (c *configuration) hop(text string) (*target, error) {
	h := &Host{}
	if err := h.parseDestination(strings.TrimSpace(text)); err != nil {
		return nil, err
	}
	return c.lookup(h.User, h.Address, h.Port), nil
}

func (c *configuration) lookup(name, alias string, port int) *target {
	get := func(key string) string { return c.get(alias, key) }
	t := &target{alias: alias, user: name, host: alias, port: port, keyAlias: get("HostKeyAlias"), timeout: 15 * time.Second}
	if h := get("HostName"); h != "" {
		t.host = strings.ReplaceAll(strings.ReplaceAll(h, "%h", alias), "%%", "%")
	}
	if t.user == "" {
		t.user = get("User")
	}
	if t.user == "" {
		t.user = localUser()
	}
	if t.port == 0 {
		t.port, _ = strconv.Atoi(get("Port"))
	}
	if t.port == 0 {
		t.port = 22
	}
	if s, err := strconv.Atoi(get("ConnectTimeout")); err == nil && s > 0 {
		t.timeout = time.Duration(s) * time.Second
	}
	if s, err := strconv.Atoi(get("ServerAliveInterval")); err == nil && s > 0 {
		t.alive = time.Duration(s) * time.Second
	}
	for _, f := range c.all(alias, "IdentityFile") {
		t.identities = append(t.identities, t.tokens(f))
	}
	if len(t.identities) == 0 {
		for _, f := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			t.identities = append(t.identities, expand("~/.ssh/"+f))
		}
	}
	t.only = yes(get("IdentitiesOnly"))
	switch agent := get("IdentityAgent"); {
	case agent == "" || agent == "SSH_AUTH_SOCK":
		t.agent = os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(agent, "$"):
		t.agent = os.Getenv(agent[1:])
	case agent != "none":
		t.agent = t.tokens(agent)
	}
	t.known = t.knownHosts(get("UserKnownHostsFile"), "~/.ssh/known_hosts ~/.ssh/known_hosts2")
	t.known = append(t.known, t.knownHosts(get("GlobalKnownHostsFile"), "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")...)
	t.acceptNew = get("StrictHostKeyChecking") == "accept-new"
	if j := get("ProxyJump"); j != "" && j != "none" {
		t.jumps = strings.Split(j, ",")
	}
	t.gssapi = yes(get("GSSAPIAuthentication"))
	t.system = c.beyond(alias, t)
	return t
}

// beyond says what of a host's configuration Go's client can't do.
func (c *configuration) beyond(alias string, t *target) string {
	if c.fails != "" {
		return c.fails
	}
	for _, key := range []string{"ProxyCommand", "PKCS11Provider", "KnownHostsCommand", "CanonicalizeHostname"} {
		if v := c.get(alias, key); v != "" && v != "none" && v != "no" {
			if key == "ProxyCommand" && len(t.jumps) > 0 {
				continue // the jump wins, as it does in ssh where it comes first
			}
			return fmt.Sprintf("ssh's configuration says %s %s", key, v)
		}
	}
	return ""
}

// knownHosts are the files of a setting, which is a list.
func (t *target) knownHosts(setting, otherwise string) []string {
	if setting == "" {
		setting = otherwise
	}
	var files []string
	words, _, _ := split(setting)
	for _, f := range words {
		if f != "none" {
			files = append(files, t.tokens(f))
		}
	}
	return files
}

// tokens expands ~ and the tokens of ssh_config(5) that files are named with.
func (t *target) tokens(path string) string {
	home, _ := os.UserHomeDir()
	return expand(strings.NewReplacer("%d", home, "%u", localUser(), "%h", t.host, "%n", t.alias, "%r", t.user, "%p", strconv.Itoa(t.port), "%%", "%").Replace(path))
}

func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

func yes(v string) bool { return strings.EqualFold(v, "yes") || strings.EqualFold(v, "true") }
