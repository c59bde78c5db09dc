package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Hosts join by tokens of either role; what is not a good token is refused.
func TestJoinByToken(t *testing.T) {
	f := newFleet(t)
	f.init("n1")
	worker := f.token("n1", "worker")
	f.join("n2", "n1", worker)
	f.up("n1", "n1", "n2")
	if states := f.engines("n1"); len(states) != 1 {
		t.Errorf("a worker is an engine: %v", states)
	}
	f.refused("n2", "is in cluster \"orch\" already, as node \"n2\"", "join", "--token", worker, f.address["n1"])
	f.refused("n2", "is a worker of cluster", "ps")
	address := f.host("n3")
	try := func(words, token string) {
		t.Helper()
		f.refused("n3", words, "join", "--name", "n3", "--advertise", address, "--token", token, f.address["n1"])
	}
	try("this is no join token", "SWMTKN-1-x")
	try("the join token is damaged", worker[:len(worker)-20])
	try("not, or no longer, valid", worker[:len(worker)-26]+strings.Repeat("a", 26))
	// The CA's digest is what the host knows the cluster by.
	parts := strings.Split(worker, "-")
	parts[3] = strings.Repeat("a", len(parts[3]))
	try("is of another cluster", strings.Join(parts, "-"))
	f.refused("n3", "node name \"n2\" is taken", "join", "--name", "n2", "--advertise", address, "--token", worker, f.address["n1"])
	again := strings.TrimSpace(f.on("n1", "cluster", "token", "worker", "-q", "--rotate"))
	try("not, or no longer, valid", worker)
	f.on("n3", "join", "--name", "n3", "--advertise", address, "--token", again, f.address["n1"])
}

// 1, 2, 4: any engine serves any request; the leader killed: another leads,
// tasks are as they were; the old one comes back as a follower.
func TestLeaderKilled(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.up("n1", "n1", "n2", "n3")
	for _, at := range []string{"n1", "n2", "n3"} {
		f.deploy(at, 4)
	}
	before := f.tasks("n1")
	first := f.leader("n1")
	at := f.other(first)
	f.kill(first)
	f.on(at, "node", "label", at, "after=kill")
	second := f.leader(at)
	if second == first {
		t.Fatal("the dead one leads")
	}
	f.start(first)
	f.voters(first, "n1", "n2", "n3")
	if now := f.leader(first); now != second {
		t.Errorf("%s leads, %s did", now, second)
	}
	f.up(first, "n1", "n2", "n3")
	f.same("the leader was killed and came back", before, f.tasks(first))
	// Ended in order, it hands leadership over.
	f.signal(second, syscall.SIGTERM)
	f.on(f.other(second), "node", "label", at, "after=term")
	f.start(second)
	f.up(second, "n1", "n2", "n3")
	f.same("the leader was ended and came back", before, f.tasks(second))
}

// 3, 5: without a quorum nothing can be changed, which is said; tasks run on.
// When all engines come back, everything is as it was.
func TestQuorumLost(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.up("n1", "n1", "n2", "n3")
	f.deploy("n1", 3)
	before := f.tasks("n1")
	f.kill("n2")
	f.kill("n3")
	f.eventually("n1 knows", func() bool {
		out, _ := f.try("n1", "cluster", "info")
		return strings.Contains(out, "no leader")
	})
	f.refused("n1", "the cluster has 3 engines and can change nothing until 2 of them reach each other; tasks run on", "node", "label", "n1", "x=y")
	if n := len(processes(f.word)); n != 3 {
		t.Errorf("%d tasks run", n)
	}
	f.refused("n1", "the engine of this host isn't locked", "cluster", "unlock")
	f.kill("n1")
	f.refused("n1", "this host is node \"n1\" of cluster \"orch\", and its orch doesn't run", "run", "web.star")
	f.refused("n1", "and its orch doesn't run", "down")
	for _, name := range []string{"n1", "n2", "n3"} {
		f.start(name)
	}
	f.voters("n1", "n1", "n2", "n3")
	f.up("n1", "n1", "n2", "n3")
	f.same("all engines were killed and came back", before, f.tasks("n1"))
	f.on("n1", "service", "scale", "web/app=4")
}

// 8, 9: promote and demote, also the leader and one that is down; what would
// cost the quorum is refused.
func TestPromoteAndDemote(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.join("n4", "n1", f.token("n1", "worker"))
	f.up("n1", "n1", "n2", "n3", "n4")
	f.deploy("n1", 4)
	before := f.tasks("n1")
	f.on("n1", "node", "promote", "n4")
	f.voters("n4", "n1", "n2", "n3", "n4")
	leader := f.leader("n4")
	f.on("n4", "node", "demote", leader)
	if f.leader("n4") == leader {
		t.Error("the demoted engine leads")
	}
	f.eventually("it is a worker", func() bool {
		out, err := f.try(leader, "node", "ls")
		return err != nil && strings.Contains(out, "is a worker of cluster")
	})
	var rest []string
	for _, name := range []string{"n1", "n2", "n3", "n4"} {
		if name != leader {
			rest = append(rest, name)
		}
	}
	f.voters("n4", rest...)
	f.up("n4", "n1", "n2", "n3", "n4")
	f.same("promoted and demoted", before, f.tasks("n4"))
	down := rest[0] // not n4
	f.kill(down)
	f.eventually("it is seen", func() bool { return f.engines("n4")[down] == "unreachable" })
	f.refused("n4", "fewer than a majority", "node", "demote", rest[1])
	f.refused("n4", "fewer than a majority", "node", "rm", "--force", rest[1])
	f.on("n4", "node", "demote", down)
	f.on("n4", "node", "demote", rest[1])
	f.refused("n4", "it is the only engine", "node", "demote", "n4")
	f.refused("n4", "it is the only engine", "cluster", "leave")
	f.start(down) // it learns that it is a worker
	f.up("n4", "n1", "n2", "n3", "n4")
	f.on("n4", "node", "promote", down)
	f.voters("n4", "n4", down)
}

// 7: an engine whose log is gone isn't what it was; one that has nothing
// left has to join anew.
func TestWipedDisk(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.kill("n3")
	if err := os.Remove(filepath.Join(f.home("n3"), "raft.db")); err != nil {
		t.Fatal(err)
	}
	f.refused("n3", "can't go on under its old identity", "agent")
	if err := os.RemoveAll(f.home("n3")); err != nil {
		t.Fatal(err)
	}
	token := f.token("n1", "engine")
	f.refused("n3", "node name \"n3\" is taken", "join", "--name", "n3", "--advertise", f.address["n3"], "--token", token, f.address["n1"])
	f.eventually("it is down", func() bool { _, err := f.try("n1", "node", "rm", "n3"); return err == nil })
	f.on("n3", "join", "--name", "n3", "--advertise", f.address["n3"], "--token", token, f.address["n1"])
	f.voters("n3", "n1", "n2", "n3")
}

// 12: the CA is replaced, twice, while a worker and an engine are away; they
// come back by themselves, tasks don't notice.
func TestRotateCAWhileAway(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.join("n4", "n1", f.token("n1", "worker"))
	f.up("n1", "n1", "n2", "n3", "n4")
	f.on("n1", "operator", "add", "ann", "--role", "view", "--out", "ann.json")
	f.on("n1", "context", "import", "ann", "ann.json")
	old := f.token("n1", "worker")
	f.kill("n3")
	f.kill("n4")
	f.eventually("they are seen", func() bool {
		out, _ := f.try("n1", "node", "ls")
		return strings.Count(out, " down ") == 2
	})
	f.on("n1", "cluster", "ca", "rotate")
	f.on("n2", "cluster", "ca", "rotate")
	f.start("n3")
	f.start("n4")
	f.up("n1", "n1", "n2", "n3", "n4")
	f.voters("n3", "n1", "n2", "n3")
	f.refused("n5", "is of another cluster", "join", "--name", "n5", "--advertise", f.host("n5"), "--token", old, f.address["n1"])
	if out := f.on("n1", "node", "ls", "--context", "ann"); !strings.Contains(out, "n4") {
		t.Errorf("a context of the old CA: %s", out)
	}
	f.refused("n1", "may only view", "node", "drain", "n1", "--context", "ann")
	f.on("n1", "operator", "rm", "ann")
	f.refused("n1", "not, or no longer, known", "node", "ls", "--context", "ann")
}

// 13: engines start locked, and the key may change while one is away.
func TestAutolock(t *testing.T) {
	f := newFleet(t)
	f.three()
	locked := func(name string) bool {
		b, err := os.ReadFile(filepath.Join(f.home(name), "keys.json"))
		return err == nil && strings.Contains(string(b), "Sealed")
	}
	key := func(out string) string { return "ORCHKEY" + strings.TrimSpace(strings.Split(out, "ORCHKEY")[1]) }
	unlock := func(name, key string) (string, error) {
		cmd := f.command(name, "cluster", "unlock")
		cmd.Stdin = strings.NewReader(key)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	first := key(f.on("n1", "cluster", "autolock", "on"))
	for _, name := range []string{"n1", "n2", "n3"} {
		f.eventually(name+" is locked", func() bool { return locked(name) })
	}
	f.kill("n3")
	second := key(f.on("n1", "cluster", "autolock", "on", "--rotate"))
	if first == second {
		t.Error("the key is the same")
	}
	if got := strings.TrimSpace(f.on("n2", "cluster", "unlock-key")); got != second {
		t.Errorf("the key is %s, not %s", got, second)
	}
	f.start("n3")
	f.eventually("it is locked", func() bool {
		out, _ := f.try("n3", "node", "ls")
		return strings.Contains(out, "this engine is locked")
	})
	if out, err := unlock("n3", second); err == nil || !strings.Contains(out, "still has the one before") {
		t.Errorf("the newer key: %v %s", err, out)
	}
	if out, err := unlock("n3", first); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	f.voters("n3", "n1", "n2", "n3")
	f.eventually("it takes the newer key", func() bool {
		f.kill("n3")
		f.start("n3")
		f.eventually("it is locked", func() bool {
			out, _ := f.try("n3", "node", "ls")
			return strings.Contains(out, "this engine is locked")
		})
		if _, err := unlock("n3", second); err == nil {
			return true
		}
		if out, err := unlock("n3", first); err != nil { // it was killed before it had heard
			t.Fatalf("%v %s", err, out)
		}
		f.voters("n3", "n1", "n2", "n3")
		return false
	})
	f.on("n1", "cluster", "autolock", "off")
	f.eventually("n1 is open", func() bool { return !locked("n1") })
	f.refused("n1", "autolock is off", "cluster", "unlock-key")
}

// 6: one survivor becomes the cluster again; the others, when they come back,
// are no part of it any more, and join anew.
func TestRecover(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.join("n4", "n1", f.token("n1", "worker"))
	f.up("n1", "n1", "n2", "n3", "n4")
	f.deploy("n1", 4)
	f.refused("n1", "there is nothing to recover", "cluster", "recover", "--yes")
	f.kill("n2")
	f.kill("n3")
	f.eventually("n1 knows", func() bool {
		out, _ := f.try("n1", "cluster", "info")
		return strings.Contains(out, "no leader")
	})
	f.on("n1", "cluster", "recover", "--yes")
	f.voters("n1", "n1")
	f.up("n1", "n1", "n4")
	f.on("n1", "service", "scale", "web/app=3")
	f.start("n2")
	f.left("n2")
	f.on("n2", "join", "--name", "n2", "--advertise", f.address["n2"], "--token", f.token("n1", "engine"), f.address["n1"])
	f.voters("n2", "n1", "n2")
	f.eventually("three tasks and no more", func() bool { return len(f.tasks("n1")) == 3 })
}

// A backup makes the cluster again: its stacks, secrets and workers.
func TestBackupAndRestore(t *testing.T) {
	f := newFleet(t)
	f.init("n1")
	f.join("n2", "n1", f.token("n1", "worker"))
	f.up("n1", "n1", "n2")
	f.deploy("n1", 2)
	put := f.command("n1", "secret", "create", "pw", "-")
	put.Stdin = strings.NewReader("correct horse")
	if out, err := put.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	f.on("n1", "cluster", "backup", "b.orch")
	if info, err := os.Stat(filepath.Join(f.dir, "b.orch")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	f.kill("n1")
	if err := os.RemoveAll(f.home("n1")); err != nil {
		t.Fatal(err)
	}
	f.refused("n1", "this is no backup of orch", "cluster", "restore", "web.star", "--name", "n1", "--advertise", f.address["n1"])
	f.on("n1", "cluster", "restore", "b.orch", "--name", "n1", "--advertise", f.address["n1"])
	f.up("n1", "n1", "n2")
	f.eventually("both tasks run", func() bool { return len(f.tasks("n1")) == 2 })
	if out := f.on("n1", "secret", "ls"); !strings.Contains(out, "pw") {
		t.Errorf("secrets: %s", out)
	}
	f.join("n3", "n1", f.token("n1", "engine"))
	f.voters("n3", "n1", "n3")
}

// 29: a host that leaves takes its tasks with it, and is forgotten; a leader
// that leaves is followed by another.
func TestLeave(t *testing.T) {
	f := newFleet(t)
	f.three()
	f.up("n1", "n1", "n2", "n3")
	f.deploy("n1", 3)
	first := f.leader("n1")
	at := f.other(first)
	f.on(first, "cluster", "leave")
	if !free(f.home(first)) {
		t.Error("its daemon runs")
	}
	f.eventually("two engines go on", func() bool { return len(f.engines(at)) == 2 })
	f.eventually("three tasks on two hosts", func() bool { return len(f.tasks(at)) == 3 && len(processes(f.word)) == 3 })
	f.refused(first, "no cluster runs here", "node", "ls")
	f.join(first, at, f.token(at, "worker"))
	f.up(at, "n1", "n2", "n3")
	// Removed by force, it stops what it runs.
	f.on(at, "node", "drain", at, "--wait")
	f.on(at, "node", "activate", at)
	f.on(at, "node", "rm", "--force", first)
	f.left(first)
	f.eventually("three tasks on two hosts", func() bool { return len(f.tasks(at)) == 3 && len(processes(f.word)) == 3 })
}

// An engine's address may change: who it is stands in its certificate.
func TestAddressChanges(t *testing.T) {
	f := newFleet(t)
	f.three()
	old := f.address["n3"]
	f.kill("n3")
	settings := filepath.Join(f.home("n3"), "host.json")
	b, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	_, oldPort, _ := strings.Cut(old, ":")
	_, port, _ := strings.Cut(f.host("n3"), ":")
	if err := os.WriteFile(settings, []byte(strings.ReplaceAll(string(b), ":"+oldPort, ":"+port)), 0o600); err != nil {
		t.Fatal(err)
	}
	f.start("n3")
	f.eventually("the others know", func() bool {
		out, _ := f.try("n1", "cluster", "info")
		return strings.Contains(out, "127.0.0.1:"+port)
	})
	f.voters("n1", "n1", "n2", "n3")
	f.kill(f.leader("n1"))
	f.eventually("it votes", func() bool {
		for _, at := range []string{"n1", "n2", "n3"} {
			if out, err := f.try(at, "node", "label", "n3", "moved=yes"); err == nil && strings.Contains(out, "moved") {
				return true
			}
		}
		return false
	})
}
