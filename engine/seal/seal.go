// Package seal encrypts secrets before they enter the log. The cluster's
// data key stands in a file of the engine's folder, never in the log.
package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/chacha20poly1305"

	"orch/engine/durable"
)

// Key is the cluster's data key.
type Key [32]byte

// OpenKey reads the key's file, or makes one (mode 0600).
func OpenKey(path string) (Key, error) {
	var k Key
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := rand.Read(k[:]); err != nil {
			return k, err
		}
		if err := durable.WriteFile(path, k[:], 0o600); err != nil {
			return k, fmt.Errorf("cannot keep the data key: %w", err)
		}
		return k, nil
	case err != nil:
		return k, fmt.Errorf("cannot read the data key: %w", err)
	case len(b) != len(k):
		return k, fmt.Errorf("the data key %s is damaged: it has %d bytes, not %d; without it the cluster's secrets can't be read: restore it from a backup", path, len(b), len(k))
	}
	copy(k[:], b)
	return k, nil
}

// Seal encrypts value with XChaCha20-Poly1305 under a random nonce, which
// goes before the ciphertext. name is authenticated with it, so that one
// secret's value can't be passed off as another's.
func (k Key) Seal(name string, value []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, value, []byte(name)), nil
}

// Open is the inverse of Seal.
func (k Key) Open(name string, sealed []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("secret %q is damaged", name)
	}
	value, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt secret %q: it was sealed with another data key", name)
	}
	return value, nil
}

// Digest identifies a value without telling it: a keyed SHA-256, in hex.
func (k Key) Digest(name string, value []byte) string {
	m := hmac.New(sha256.New, k[:])
	m.Write([]byte(name))
	m.Write([]byte{0})
	m.Write(value)
	return hex.EncodeToString(m.Sum(nil))[:32]
}
