package mesh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A key is offered when the one before is old, and used when others know it,
// whenever the agent restarts between.
func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mesh.key")
	read := func() keys {
		t.Helper()
		k, err := readKeys(file)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := read()
	first := k.used
	now := time.Now()
	if changed, err := k.renew(now.Add(keyFor / 2)); changed || err != nil || k.offered() != first {
		t.Errorf("renewed early: %t, %v", changed, err)
	}
	if changed, err := k.renew(now.Add(keyFor + time.Hour)); !changed || err != nil {
		t.Fatalf("not renewed: %v", err)
	}
	second := k.offered()
	if second == first || k.used != first {
		t.Errorf("offers the old one, or uses the new one")
	}
	k = read()
	if changed, err := k.renew(now.Add(2 * keyFor)); changed || err != nil || k.offered() != second || k.used != first {
		t.Errorf("after a restart: %t, %v", changed, err)
	}
	for _, known := range []string{"", first.PublicKey().String(), "nonsense"} {
		if err := k.known(known); err != nil || k.used != first {
			t.Errorf("others know %q: %v", known, err)
		}
	}
	if err := k.known(second.PublicKey().String()); err != nil || k.used != second {
		t.Errorf("it isn't used: %v", err)
	}
	if k = read(); k.used != second || k.offered() != second {
		t.Error("a restart brings the old one back")
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(file); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged one: %v", err)
	}
}
