// Package seal encrypts secrets, and the CA's key, before they enter the log.
// The cluster's data key is known to its engines only and never in the log.
package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Key is the cluster's data key.
type Key [32]byte

// NewKey makes a data key.
func NewKey() Key {
	var k Key
	if _, err := rand.Read(k[:]); err != nil {
		panic(err) // no randomness: nothing here can go on
	}
	return k
}

// KeyOf is the key in b, which has 32 bytes.
func KeyOf(b []byte) (Key, error) {
	var k Key
	if len(b) != len(k) {
		return k, fmt.Errorf("a data key has %d bytes, not %d", len(k), len(b))
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
