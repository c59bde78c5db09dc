package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"orch/engine/seal"
)

func TestSeal(t *testing.T) {
	k, other := seal.Key{1}, seal.Key{2}
	rapid.Check(t, func(t *rapid.T) {
		name, value := rapid.String().Draw(t, "name"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		sealed, err := k.Seal(name, value)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(name, sealed); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("got %q, %v", got, err)
		}
		if again, _ := k.Seal(name, value); bytes.Equal(again, sealed) {
			t.Fatal("twice the same")
		}
		if len(value) > 8 && bytes.Contains(sealed, value) {
			t.Fatal("it shows")
		}
		if _, err := k.Open(name+"x", sealed); err == nil {
			t.Fatal("opened under another name")
		}
		if _, err := other.Open(name, sealed); err == nil {
			t.Fatal("opened with another key")
		}
		sealed[rapid.IntRange(0, len(sealed)-1).Draw(t, "at")] ^= 1
		if _, err := k.Open(name, sealed); err == nil {
			t.Fatal("opened although changed")
		}
		if _, err := k.Open(name, sealed[:min(len(sealed), 10)]); err == nil {
			t.Fatal("opened although cut")
		}
		digest, again := k.Digest(name, value), k.Digest(name, value)
		if digest == other.Digest(name, value) || digest != again {
			t.Fatal("a digest must need the key, and be the same always")
		}
	})
}

func TestOpenKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.key")
	k, err := seal.OpenKey(path)
	if err != nil || k == (seal.Key{}) {
		t.Fatal(k, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if again, err := seal.OpenKey(path); err != nil || again != k {
		t.Error("another key after a restart", err)
	}
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenKey(path); err == nil || !strings.Contains(err.Error(), "it has 5 bytes, not 32") || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("got %v", err)
	}
}
