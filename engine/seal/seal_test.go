package seal_test

import (
	"bytes"
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

func TestKeyOf(t *testing.T) {
	k := seal.NewKey()
	if got, err := seal.KeyOf(k[:]); err != nil || got != k || k == (seal.Key{}) || k == seal.NewKey() {
		t.Error(got, err)
	}
	if _, err := seal.KeyOf(k[:5]); err == nil || !strings.Contains(err.Error(), "32 bytes, not 5") {
		t.Errorf("got %v", err)
	}
}
