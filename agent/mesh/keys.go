package mesh

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// keyFor is how long a key is used. WireGuard agrees on new keys of its own for
// what it encrypts every two minutes; this one says who the node is.
const keyFor = 30 * 24 * time.Hour

// keys are a node's, in files. A new one is offered to the others first, and used
// from when they know it: so both sides change within the time that it takes the
// cluster to tell them, and what is sent meanwhile is sent again.
type keys struct {
	file string
	used wgtypes.Key
	next wgtypes.Key // zero: none is offered
}

func (k *keys) nextFile() string { return k.file + ".next" }

// readKeys reads the node's keys, or makes the first.
func readKeys(file string) (keys, error) {
	k := keys{file: file}
	var err error
	if k.used, err = readKey(file); errors.Is(err, os.ErrNotExist) {
		k.used, err = makeKey(file)
	}
	if err != nil {
		return k, err
	}
	if k.next, err = readKey(k.nextFile()); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return k, err
}

func readKey(file string) (wgtypes.Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return wgtypes.Key{}, err
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return key, fmt.Errorf("the mesh's key in %s is damaged; without the file a new one is made: %w", file, err)
	}
	return key, nil
}

func makeKey(file string) (wgtypes.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err == nil {
		err = os.WriteFile(file+".new", []byte(key.String()+"\n"), 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	return key, err
}

// offered is the key that others should know.
func (k *keys) offered() wgtypes.Key {
	if k.next != (wgtypes.Key{}) {
		return k.next
	}
	return k.used
}

// renew offers a new key if the used one is old, and none is offered yet.
func (k *keys) renew(now time.Time) (changed bool, err error) {
	if k.next != (wgtypes.Key{}) {
		return false, nil
	}
	info, err := os.Stat(k.file)
	if err != nil || now.Sub(info.ModTime()) < keyFor {
		return false, err
	}
	next, err := makeKey(k.nextFile())
	if err != nil {
		return false, fmt.Errorf("cannot make the mesh's next key: %w", err)
	}
	k.next = next
	return true, nil
}

// known says which public key the others know: the one that is offered is used
// from now on, if it is that.
func (k *keys) known(public string) error {
	if k.next == (wgtypes.Key{}) || k.next.PublicKey().String() != public {
		return nil
	}
	if err := os.Rename(k.nextFile(), k.file); err != nil {
		return fmt.Errorf("cannot replace the mesh's key: %w", err)
	}
	k.used, k.next = k.next, wgtypes.Key{}
	return nil
}
