package docker

import (
	"bufio"
	"os"
	"slices"
	"strings"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

const resolvConf = "/etc/resolv.conf"

// named is t with the file that has it ask the data plane for names, which
// listens on the host's own address in t's first network. Docker's resolver is
// left out: it would answer from what it knows itself, and asks nobody for those
// on internal networks.
func (r *Runtime) named(t *task.Task) *task.Task {
	if r.cfg.Plane == nil || len(t.Networks) == 0 || t.Networks[0].Address == "" {
		return t
	}
	gateway := api.Gateway(t.Networks[0].Subnet)
	if gateway == "" || slices.ContainsFunc(t.Files, func(f *api.TaskFile) bool { return taskfiles.Path(f) == resolvConf }) ||
		slices.ContainsFunc(t.Spec.Mounts, func(m *api.Mount) bool { return m.Target == resolvConf }) {
		return t
	}
	text := "nameserver " + gateway + "\n" + searched() + "options ndots:0\n"
	all := *t
	all.Files = append(slices.Clip(t.Files), &api.TaskFile{Name: "resolv.conf", Path: resolvConf, Mode: 0o444, Content: []byte(text)})
	return &all
}

// searched is the line of the host's resolv.conf that says in which domains it
// looks for short names.
func searched() (line string) {
	file, err := os.Open(resolvConf)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "search ") {
			line = text + "\n"
		}
	}
	return line
}
