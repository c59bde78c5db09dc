package bootstrap

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// takeAway removes all that bootstrap made, the tasks' own data in the data
// folder among it. $1 data folder, $2 binary, $3 supervisor, $4 unit, $5 lock
const takeAway = `
if [ -d /run/systemd/system ]; then
	systemctl disable -q --now orch.service 2>/dev/null
	rm -f "$4"
	systemctl daemon-reload
fi
if [ -x "$3" ]; then "$3" stop; fi
if [ -L /etc/init.d/orch ]; then
	if command -v update-rc.d; then rm -f /etc/init.d/orch; update-rc.d orch remove
	else chkconfig --del orch; rm -f /etc/init.d/orch; fi
fi >/dev/null 2>&1
rm -f /etc/local.d/orch.start
if command -v crontab >/dev/null && crontab -l 2>/dev/null | grep -qF "$3"; then crontab -l | grep -vF "$3" | crontab -; fi
if [ -f /etc/rc.local ] && grep -qF "$3" /etc/rc.local; then sed "\|$3|d" /etc/rc.local >/etc/rc.local.new && cat /etc/rc.local.new >/etc/rc.local; rm -f /etc/rc.local.new; fi
# What an agent that couldn't leave in order has left of networks across hosts.
for l in /sys/class/net/orchw* /sys/class/net/orv*; do
	if [ -e "$l" ]; then ip link del "${l##*/}"; fi
done 2>/dev/null
if command -v nft >/dev/null; then
	nft list tables inet 2>/dev/null | while read -r _ _ t; do case "$t" in orchw*) nft delete table inet "$t" ;; esac; done
fi
rm -f "$2" "$3"
rm -rf "$1" 2>/dev/null # it may be a mount point: that it is empty is enough
if [ -n "$(ls -A "$1" 2>/dev/null)" ]; then echo "$1 can't be emptied: is something mounted in it?" >&2; exit 1; fi
rm -rf "$5"
`

// Reset takes orch off the hosts again: each leaves its cluster, which stops
// its tasks, then the service, the binary and the data folder are removed.
// Agents go first, side by side; engines follow one by one, and those that the
// cluster doesn't let go are taken away all the same: that is what was asked for.
func Reset(ctx context.Context, o Options) (*Result, error) {
	r, err := begin(&o)
	if err != nil {
		return nil, err
	}
	defer r.hangUp()
	r.look(ctx)
	result := &Result{}
	var agents, engines []*Seen
	for _, s := range r.all {
		if s.Err != nil {
			result.Findings = append(result.Findings, Finding{Host: s.Host, Error: true, Text: s.Err.Error()})
			r.fail(s.Host, s.Err)
			continue
		}
		ops := resetPlan(s, &o)
		result.Plans = append(result.Plans, HostPlan{s.Name, s.Role, ops})
		if _, _, role := s.Facts.member(); role == "engine" {
			engines = append(engines, s)
		} else {
			agents = append(agents, s)
		}
	}
	if o.Found != nil {
		o.Found(result.Findings)
	}
	if o.DryRun {
		return result, nil
	}
	one := func(s *Seen) {
		ops := resetPlan(s, &o)
		if len(ops) == 0 {
			r.say(Event{Host: s.Name, State: "done", Text: "nothing to do"})
			return
		}
		h := &hostRun{run: r, Seen: s}
		if err := h.reset(ctx, ops); err != nil {
			r.fail(s.Host, err)
			r.say(Event{Host: s.Name, Op: h.at, State: "failed", Text: err.Error()})
			return
		}
		r.mu.Lock()
		result.Changed++
		r.mu.Unlock()
		r.say(Event{Host: s.Name, State: "done", Text: "taken away"})
	}
	each(ctx, o.Parallel, agents, one)
	slices.Reverse(engines) // the founder, which is the first of most inventories, goes last
	each(ctx, 1, engines, one)
	result.Failed = r.failures()
	return result, ctx.Err()
}

// resetPlan is what is there to be taken away.
func resetPlan(s *Seen, o *Options) []Op {
	f := s.Facts
	var ops []Op
	if id, _, _ := f.member(); id != "" {
		ops = append(ops, Op{"leave", "stop its tasks and take it out of its cluster"})
	}
	if f.Binary != "" || f.Unit != "" || f.Supervisor != "" || f.Data || f.Lock != "" {
		ops = append(ops, Op{"remove", strings.Join([]string{"remove the service,", o.binary(), "and", o.DataDir}, " ")})
	}
	return ops
}

func (h *hostRun) reset(ctx context.Context, ops []Op) error {
	h.at = "lock"
	if h.Facts.Lock == "" {
		if err := h.acquire(ctx); err != nil {
			return err
		}
	}
	for _, op := range ops {
		h.at = op.Kind
		h.say(Event{Host: h.Name, Op: op.Kind, State: "begun", Text: op.Text})
		var err error
		if op.Kind == "leave" {
			err = h.leave(ctx)
		} else {
			_, err = h.shell.output(ctx, takeAway, nil, h.DataDir, h.binary(), h.supervisor(), unitPath, h.lock())
		}
		if err != nil {
			return fmt.Errorf("cannot %s: %w", op.Text, err)
		}
	}
	return nil
}

// leave asks, and then insists.
func (h *hostRun) leave(ctx context.Context) error {
	script := h.binary() + ` host leave --dir "$1"`
	_, err := h.shell.output(ctx, script, nil, h.DataDir)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if _, forced := h.shell.output(ctx, script+" --force", nil, h.DataDir); forced != nil {
		h.say(Event{Host: h.Name, Op: "leave", State: "warning", Text: "it could not leave in order, and what it runs may go on: " + forced.Error()})
	}
	return nil
}
