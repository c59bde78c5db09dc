package folder_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/folder"
)

func open(t *testing.T, dir string) *folder.Folder {
	t.Helper()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A folder is the same when it is opened again, and one process's at a time.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	f := open(t, dir)
	var used *folder.InUseError
	if _, err := folder.Open(dir); !errors.As(err, &used) || used.PID != fmt.Sprint(os.Getpid()) {
		t.Errorf("got %v", err)
	}
	if pid, yes := folder.InUse(dir); !yes || pid != fmt.Sprint(os.Getpid()) {
		t.Error(pid, yes)
	}
	m := &api.Membership{ClusterId: "c", Name: "n1", Role: "engine", Certificate: []byte("cert"), Engines: []*api.Peer{{Name: "n1"}}}
	if err := f.SetMembership(m); err != nil {
		t.Fatal(err)
	}
	// What doesn't bring a certificate or engines leaves those.
	if err := f.SetMembership(&api.Membership{ClusterId: "c", Name: "n1", Role: "agent", Renew: true}); err != nil {
		t.Fatal(err)
	}
	keys, err := f.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetSettings(folder.Settings{Advertise: "a:1"}); err != nil {
		t.Fatal(err)
	}
	id := f.ID
	f.Close()
	if _, yes := folder.InUse(dir); yes {
		t.Error("it is still taken")
	}
	f = open(t, dir)
	defer f.Close()
	m.Role = "agent"
	again, err := f.Keys()
	if err != nil || !again.Node.Equal(keys.Node) || string(again.Disk) != string(keys.Disk) || f.ID != id || !proto.Equal(f.Membership(), m) {
		t.Errorf("another folder: %v %v", f.Membership(), err)
	}
	if s, err := f.Settings(); err != nil || s.Advertise != "a:1" {
		t.Error(s, err)
	}
	read, err := folder.Read(dir)
	if err != nil || read.ID != id {
		t.Error(read, err)
	}
	if err := f.Leave(); err != nil {
		t.Fatal(err)
	}
	if now, err := f.Keys(); err != nil || f.ID == id || f.Membership() != nil || now.Node.Equal(keys.Node) {
		t.Error("it remembers the cluster", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	before, err := f.Keys()
	if err != nil {
		t.Fatal(err)
	}
	key := folder.NewUnlockKey()
	if err := f.SetUnlockKey(key); err != nil {
		t.Fatal(err)
	}
	if err := f.UpdateKeys(func(k *folder.Keys) { k.Log = true }); err != nil {
		t.Fatal(err)
	}
	f.Close()
	b, err := os.ReadFile(filepath.Join(dir, "keys.json"))
	if err != nil || strings.Contains(string(b), "Disk") {
		t.Errorf("the keys can be read: %s, %v", b, err)
	}
	f = open(t, dir)
	defer f.Close()
	if _, err := f.Keys(); !errors.Is(err, folder.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if err := f.UpdateKeys(func(*folder.Keys) {}); !errors.Is(err, folder.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if err := f.Unlock(folder.NewUnlockKey()); err == nil || !strings.Contains(err.Error(), "not the unlock key") {
		t.Errorf("got %v", err)
	}
	parsed, err := folder.ParseUnlockKey(key.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Unlock(parsed); err != nil {
		t.Fatal(err)
	}
	after, err := f.Keys()
	if err != nil || !after.Node.Equal(before.Node) || !after.Log {
		t.Error("other keys", err)
	}
	if err := f.SetUnlockKey(nil); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "keys.json")); err != nil || !strings.Contains(string(b), "Disk") {
		t.Errorf("it is still locked: %v", err)
	}
	for _, bad := range []string{"", "ORCHKEY-1-", "ORCHKEY-1-abc", key.String()[:30]} {
		if _, err := folder.ParseUnlockKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestOlderFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Open(dir); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("got %v", err)
	}
}
