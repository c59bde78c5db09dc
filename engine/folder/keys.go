package folder

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"orch/engine/ca"
	"orch/engine/durable"
)

// Keys are what a host must keep to itself.
type Keys struct {
	Node *ecdsa.PrivateKey // of its certificates, for ever: a node whose certificate expired renews with it
	Disk []byte            // 32 bytes: encrypts an engine's log and snapshots
	Data []byte            // engines: the cluster's data key, 32 bytes; nil: not known yet
	// Log says that this host's engine has begun a log: without it there is
	// something wrong.
	Log bool
	// Authority and Certificate are the CA's, DER, of the host that founds
	// a cluster, until they are in the log.
	Authority, Certificate []byte
}

// keysJSON is Keys as they stand in the file.
type keysJSON struct {
	Node        []byte // PKCS #8
	Disk        []byte
	Data        []byte `json:",omitempty"`
	Log         bool   `json:",omitempty"`
	Authority   []byte `json:",omitempty"`
	Certificate []byte `json:",omitempty"`
}

// keyFile is keys.json: the keys as they are, or sealed with the cluster's
// unlock key by XChaCha20-Poly1305, the nonce before the ciphertext.
type keyFile struct {
	Format int
	Keys   *keysJSON `json:",omitempty"`
	Sealed []byte    `json:",omitempty"`
}

const keysFormat = 1

// UnlockKey opens locked keys. nil: the keys aren't locked.
type UnlockKey []byte

// unlockPrefix begins an unlock key as people see it.
const unlockPrefix = "ORCHKEY-1-"

// NewUnlockKey makes a key of 256 random bits.
func NewUnlockKey() UnlockKey {
	k := make(UnlockKey, chacha20poly1305.KeySize)
	if _, err := rand.Read(k); err != nil {
		panic(err)
	}
	return k
}

func (k UnlockKey) String() string {
	if k == nil {
		return ""
	}
	return unlockPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(k))
}

// ParseUnlockKey is the inverse of String.
func ParseUnlockKey(text string) (UnlockKey, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), unlockPrefix)
	if !ok {
		return nil, fmt.Errorf("this is no unlock key: it should be like %s…, as `orch cluster autolock` prints it", unlockPrefix)
	}
	k, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(rest))
	if err != nil || len(k) != chacha20poly1305.KeySize {
		return nil, errors.New("the unlock key is damaged: copy all of what `orch cluster unlock-key` printed")
	}
	return k, nil
}

// ErrLocked says that the keys can't be used before Unlock.
var ErrLocked = errors.New("this engine is locked: `orch cluster unlock` opens it with the cluster's unlock key")

// Keys are the host's; ErrLocked if they are locked.
func (f *Folder) Keys() (Keys, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return Keys{}, ErrLocked
	}
	return *f.open, nil
}

// Unlock opens locked keys.
func (f *Folder) Unlock(key UnlockKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open != nil {
		return nil
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return err
	}
	s := f.keys.Sealed
	if len(s) < aead.NonceSize() {
		return f.damaged(errors.New("it is cut short"))
	}
	plain, err := aead.Open(nil, s[:aead.NonceSize()], s[aead.NonceSize():], []byte(f.ID))
	if err != nil {
		return errors.New("this is not the unlock key of this engine; one that was down while the key changed still has the one before")
	}
	var k keysJSON
	if err := json.Unmarshal(plain, &k); err != nil {
		return f.damaged(err)
	}
	f.unlockKey = key
	return f.use(&k)
}

// SetUnlockKey locks the keys with key from now on; nil leaves them open.
func (f *Folder) SetUnlockKey(key UnlockKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return ErrLocked
	}
	if string(key) == string(f.unlockKey) {
		return nil
	}
	old := f.unlockKey
	f.unlockKey = key
	if err := f.writeKeys(*f.open); err != nil {
		f.unlockKey = old
		return err
	}
	return nil
}

// UpdateKeys changes the keys and returns once that is on the disk.
func (f *Folder) UpdateKeys(change func(*Keys)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		return ErrLocked
	}
	k := *f.open
	change(&k)
	return f.writeKeys(k)
}

func (f *Folder) damaged(err error) error {
	return fmt.Errorf("%s is damaged (%w): restore it from a backup, or leave the cluster and join again", f.path("keys.json"), err)
}

func (f *Folder) readKeys() error {
	b, err := os.ReadFile(f.path("keys.json"))
	if errors.Is(err, os.ErrNotExist) {
		return f.makeKeys()
	}
	if err != nil {
		return fmt.Errorf("cannot read the host's keys: %w", err)
	}
	f.keys = keyFile{}
	if err := json.Unmarshal(b, &f.keys); err != nil {
		return f.damaged(err)
	}
	switch {
	case f.keys.Format != keysFormat:
		return fmt.Errorf("%s has format %d; this orch reads %d: use a newer orch", f.path("keys.json"), f.keys.Format, keysFormat)
	case f.keys.Keys != nil:
		return f.use(f.keys.Keys)
	case f.keys.Sealed == nil:
		return f.damaged(errors.New("it holds no keys"))
	}
	return nil // locked
}

func (f *Folder) makeKeys() error {
	node, err := ca.NewKey()
	if err != nil {
		return err
	}
	disk := make([]byte, 32)
	if _, err := rand.Read(disk); err != nil {
		return err
	}
	f.unlockKey = nil
	return f.writeKeys(Keys{Node: node, Disk: disk})
}

func (f *Folder) use(k *keysJSON) error {
	node, err := ca.ParseKey(k.Node)
	if err != nil {
		return f.damaged(err)
	}
	if len(k.Disk) != 32 || len(k.Data) != 0 && len(k.Data) != 32 {
		return f.damaged(errors.New("a key has the wrong length"))
	}
	f.open = &Keys{Node: node, Disk: k.Disk, Data: k.Data, Log: k.Log, Authority: k.Authority, Certificate: k.Certificate}
	return nil
}

func (f *Folder) writeKeys(k Keys) error {
	node, err := x509.MarshalPKCS8PrivateKey(k.Node)
	if err != nil {
		return err
	}
	plain := &keysJSON{Node: node, Disk: k.Disk, Data: k.Data, Log: k.Log, Authority: k.Authority, Certificate: k.Certificate}
	file := keyFile{Format: keysFormat, Keys: plain}
	if f.unlockKey != nil {
		if file.Sealed, err = f.seal(plain); err != nil {
			return err
		}
		file.Keys = nil
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.path("keys.json"), b, 0o600); err != nil {
		return fmt.Errorf("cannot keep the host's keys: %w", err)
	}
	f.keys, f.open = file, &k
	return nil
}

func (f *Folder) seal(k *keysJSON) ([]byte, error) {
	plain, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(f.unlockKey)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, plain, []byte(f.ID)), nil
}
