package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// credentials are what the user proves to be itself with: ssh-agent's keys,
// key files, and what it types. What was typed once isn't asked for again.
type credentials struct {
	ask func(prompt string) (string, error) // nil: nobody is there to ask

	mu      sync.Mutex // one question at a time
	opened  map[string]ssh.Signer
	refused map[string]error
}

// attempt is one try to authenticate.
type attempt struct {
	methods []ssh.AuthMethod
	notes   []error    // what could not be used
	agent   net.Conn   // nil: none
	done    sync.Mutex // guards notes
}

func (a *attempt) note(err error) {
	a.done.Lock()
	defer a.done.Unlock()
	a.notes = append(a.notes, err)
}

func (a *attempt) close() {
	if a.agent != nil {
		a.agent.Close()
	}
}

// attempt collects the ways to authenticate at a target.
func (c *credentials) attempt(t *target) *attempt {
	a := &attempt{}
	var held []ssh.Signer
	if t.agent != "" {
		conn, err := net.Dial("unix", t.agent)
		if err != nil {
			a.note(fmt.Errorf("ssh-agent: %w", err))
		} else {
			a.agent = conn
			if held, err = agent.NewClient(conn).Signers(); err != nil {
				a.note(fmt.Errorf("ssh-agent: %w", err))
			}
		}
	}
	a.methods = append(a.methods, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return c.signers(t, held, a), nil }))
	if c.ask != nil {
		a.methods = append(a.methods, c.typed(t)...)
	}
	return a
}

// signers are the agent's keys, those that the configuration names first, and
// then the keys in files that the agent doesn't hold.
func (c *credentials) signers(t *target, held []ssh.Signer, a *attempt) []ssh.Signer {
	var first, others, files []ssh.Signer
	var wanted []ssh.PublicKey
	for _, path := range t.identities {
		public, err := publicKey(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil: // not even its public half can be read without a passphrase
			s, err := c.open(path)
			if err != nil {
				a.note(err)
				continue
			}
			public = s.PublicKey()
		}
		wanted = append(wanted, public)
		if holds(held, public) {
			continue
		}
		key := &keyFile{c, a, path, public}
		if text, err := os.ReadFile(path + "-cert.pub"); err == nil {
			if p, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
				if cert, ok := p.(*ssh.Certificate); ok {
					if s, err := ssh.NewCertSigner(cert, key); err == nil {
						files = append(files, s)
					}
				}
			}
		}
		files = append(files, key)
	}
	for _, s := range held {
		switch {
		case contains(wanted, s.PublicKey()):
			first = append(first, s)
		case !t.only:
			others = append(others, s)
		}
	}
	return append(append(first, others...), files...)
}

// keyFile is a private key in a file, opened once the server accepts it: a
// passphrase that nobody needs is not asked for.
type keyFile struct {
	c      *credentials
	a      *attempt
	path   string
	public ssh.PublicKey
}

func (k *keyFile) PublicKey() ssh.PublicKey { return k.public }

func (k *keyFile) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(rand, data, "")
}

func (k *keyFile) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	s, err := k.c.open(k.path)
	if err != nil {
		k.a.note(err)
		return nil, err
	}
	if with, ok := s.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return with.SignWithAlgorithm(rand, data, algorithm)
	}
	return s.Sign(rand, data)
}

// typed are password and keyboard-interactive.
func (c *credentials) typed(t *target) []ssh.AuthMethod {
	ask := func(prompt string) (string, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ask(prompt)
	}
	who := t.user + "@" + t.host
	return []ssh.AuthMethod{
		ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			var answers []string
			for _, q := range questions {
				a, err := ask("(" + who + ") " + q)
				if err != nil {
					return nil, err
				}
				answers = append(answers, a)
			}
			return answers, nil
		}),
		ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) { return ask(who + "'s password: ") }), 3),
	}
}

// open reads a private key, once.
func (c *credentials) open(path string) (ssh.Signer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.opened[path]; s != nil {
		return s, nil
	}
	if err := c.refused[path]; err != nil {
		return nil, err
	}
	s, err := c.read(path)
	if err != nil {
		if c.refused == nil {
			c.refused = map[string]error{}
		}
		c.refused[path] = err
		return nil, err
	}
	if c.opened == nil {
		c.opened = map[string]ssh.Signer{}
	}
	c.opened[path] = s
	return s, nil
}

func (c *credentials) read(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var missing *ssh.PassphraseMissingError
	for try := 0; errors.As(err, &missing) || try > 0 && err != nil && try < 3; try++ {
		if c.ask == nil {
			return nil, fmt.Errorf("key %s has a passphrase, and there is no terminal to ask for it: `ssh-add %s` first", path, quote(path))
		}
		phrase, asked := c.ask(fmt.Sprintf("Passphrase of %s: ", path))
		if asked != nil {
			return nil, fmt.Errorf("key %s has a passphrase: %w", path, asked)
		}
		missing = nil
		signer, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(phrase))
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return signer, nil
}

// publicKey is the public half of a key file, from beside it or, where the
// file isn't locked, from itself.
func publicKey(path string) (ssh.PublicKey, error) {
	if text, err := os.ReadFile(path + ".pub"); err == nil {
		public, _, _, _, err := ssh.ParseAuthorizedKey(text)
		return public, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing) && missing.PublicKey != nil:
		return missing.PublicKey, nil
	case err != nil:
		return nil, err
	}
	return signer.PublicKey(), nil
}

func contains(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range keys {
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			return true
		}
	}
	return false
}

func holds(signers []ssh.Signer, key ssh.PublicKey) bool {
	for _, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) {
			return true
		}
	}
	return false
}
