package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, mode os.FileMode, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write(t, 0o644, dir+"/more/racks.txt", "r1 # the first\n@../deep.txt\n")
	write(t, 0o644, dir+"/deep.txt", "deep.example.com:2222")
	write(t, 0o755, dir+"/cloud", "#!/bin/sh\necho '10.0.0.9 name=c1'\necho '# nothing'\n")
	path := write(t, 0o644, dir+"/hosts.txt", `# a cluster
root@n1 role=engine name=one label.disk=ssd label.zone="rack 1"   # with a comment
[fd00::1]:2200 addr=fd00::1 key='~/my keys/id'
fd00::2 jump=bob@bastion:2022,inner
host#1
@more/racks.txt

@cloud
`)
	hosts, err := Read(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		h.Source = strings.TrimPrefix(h.Source, dir+"/")
	}
	want := []*Host{
		{Line: `root@n1 role=engine name=one label.disk=ssd label.zone="rack 1"`, Source: "hosts.txt:2", User: "root", Address: "n1", Role: "engine", Name: "one",
			Labels: map[string]string{"disk": "ssd", "zone": "rack 1"}},
		{Line: `[fd00::1]:2200 addr=fd00::1 key='~/my keys/id'`, Source: "hosts.txt:3", Address: "fd00::1", Port: 2200, Addr: "fd00::1", Key: "~/my keys/id"},
		{Line: `fd00::2 jump=bob@bastion:2022,inner`, Source: "hosts.txt:4", Address: "fd00::2", Jump: "bob@bastion:2022,inner"},
		{Line: "host#1", Source: "hosts.txt:5", Address: "host#1"},
		{Line: "r1", Source: "more/racks.txt:1", Address: "r1"},
		{Line: "deep.example.com:2222", Source: "deep.txt:1", Address: "deep.example.com", Port: 2222},
		{Line: "10.0.0.9 name=c1", Source: "cloud:1", Address: "10.0.0.9", Name: "c1"},
	}
	if d := cmp.Diff(want, hosts); d != "" {
		t.Error(d)
	}

	hosts, err = Read(t.Context(), "-", strings.NewReader("a\n@"+dir+"/deep.txt"))
	if err != nil || len(hosts) != 2 || hosts[0].Source != "-:1" {
		t.Errorf("stdin: %v, %v", hosts, err)
	}
}

func TestReadErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, 0o755, dir+"/fails", "#!/bin/sh\necho no credentials >&2\nexit 3\n")
	for text, want := range map[string]string{
		"":                         "names no host",
		"# only words":             "names no host",
		"a rol=engine":             `hosts.txt:1: unknown key "rol" (role?)`,
		"a labels.x=1":             `unknown key "labels.x"`,
		"a zone=1":                 "known are role=",
		"a role=engin":             "want engine or agent (engine?)",
		"a role=engine role=agent": "role= is there twice",
		"a engine":                 `"engine" is no key=value`,
		"a key=":                   "key= has no value",
		"a name=A_1":               "a letter or digit at both ends",
		"a hostkey=MD5:00":         "want SHA256:",
		"a:0":                      "from 1 to 65535",
		"a:b:c":                    "is no [user@]host[:port]",
		"@a@":                      "cannot read the inventory",
		"role=engine":              "begins with the host",
		"-oProxyCommand=evil":      "begins with the host",
		"a 'b":                     "a quote is not closed",
		"\n\na addr=1.2.3.4:55":    "hosts.txt:3: addr=1.2.3.4:55: without a port",
		"@missing.txt":             "hosts.txt:1: cannot read the inventory",
		"@hosts.txt":               "does it include itself?",
		"@fails":                   "no credentials",
		"@fails x=1":               `"x=1" after an include`,
		"a label.-=x":              "a label's name",
	} {
		_, err := Read(t.Context(), write(t, 0o644, dir+"/hosts.txt", text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func TestAllErrorsOfAnInventoryAtOnce(t *testing.T) {
	_, err := Read(t.Context(), write(t, 0o644, t.TempDir()+"/h", "a x=1 y=2\nb z=3"), nil)
	for _, want := range []string{`h:1: unknown key "x"`, `h:1: unknown key "y"`, `h:2: unknown key "z"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in %v", want, err)
		}
	}
}

func TestAssignRoles(t *testing.T) {
	for _, c := range []struct {
		roles  string // of the lines: e, a or - for none
		is     map[int]string
		others int
		want   string
		err    string
	}{
		{roles: "-", want: "e"},
		{roles: "--", want: "ea"},
		{roles: "---", want: "eee"},
		{roles: "------", want: "eeeaaa"},
		{roles: "-e-", want: "aea"},
		{roles: "a---", want: "aeee"},
		{roles: "aaa", err: "no host is an engine"},
		{roles: "ee-", err: "make it 1 or 3"},
		{roles: "eeee", err: "survive the loss of 1 engine"},
		{roles: "eeeeeee", err: "7 engines"},
		{roles: "--", is: map[int]string{1: "engine"}, want: "ae"},
		{roles: "----", is: map[int]string{0: "agent", 2: "engine"}, want: "aeee"},
		{roles: "--", others: 3, want: "aa"},
		{roles: "e-", others: 3, err: "4 engines"},
		{roles: "ee", others: 1, want: "ee"},
	} {
		var hosts []*Host
		for _, r := range c.roles {
			hosts = append(hosts, &Host{Role: map[rune]string{'e': "engine", 'a': "agent"}[r]})
		}
		_, err := AssignRoles(hosts, c.is, c.others)
		got := ""
		for _, h := range hosts {
			got += h.Role[:1]
		}
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v; want %s", c.roles, err, c.err)
			}
		case err != nil || got != c.want:
			t.Errorf("%s %v: %s, %v; want %s", c.roles, c.is, got, err, c.want)
		}
	}
}
