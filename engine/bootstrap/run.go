package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"orch/engine/api"
)

// Result is how it came out.
type Result struct {
	Findings []Finding
	Plans    []HostPlan // in the inventory's order; with DryRun, what would be done
	Failed   []*Host    // those that aren't nodes as their lines say
	Changed  int        // hosts on which something was done
	Cluster  string     // its name; empty: there is none
}

// HostPlan is what is to be done on a host.
type HostPlan struct {
	Host string `json:"host"`
	Role string `json:"role"`
	Ops  []Op   `json:"ops"`
}

// run is one Run, Upgrade or Reset.
type run struct {
	*Options
	all      []*Seen
	id       string // of the cluster; empty: it is yet to be founded
	explicit bool   // the cluster's name was asked for
	rolling  sync.Mutex
	said     sync.Mutex

	mu     sync.Mutex // guards what is below
	door   Cluster
	failed map[*Host]error
	secret *answer
}

// answer is what somebody was asked once.
type answer struct {
	once sync.Once
	text string
	err  error
}

// Run makes the hosts nodes of one cluster. What is wrong with single hosts is
// in the result; an error is that there could be no cluster at all.
func Run(ctx context.Context, o Options) (*Result, error) {
	r, err := begin(&o)
	if err != nil {
		return nil, err
	}
	defer r.hangUp()
	others := 0
	if o.Join != nil {
		info, err := o.Join.Info(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot ask the cluster to join: %w", err)
		}
		r.id, r.Cluster, r.door = info.Cluster.GetId(), info.Cluster.GetName(), o.Join
		others = len(info.Engines)
	}
	// What can be known to be wrong without asking anybody comes first.
	if err := explicitRoles(o.Hosts, others); err != nil {
		return nil, err
	}
	r.look(ctx)
	if r.id == "" {
		var name string
		r.id, name = clusterOf(r.all)
		switch {
		case name == "" || name == r.Cluster:
		case r.explicit:
			return nil, fmt.Errorf("the hosts are in cluster %q already, not %q: leave --cluster out, or --reset them first", name, r.Cluster)
		default:
			r.Cluster = name
		}
	}
	is := map[int]string{}
	for i, s := range r.all {
		if id, _, role := s.Facts.member(); id == r.id && id != "" {
			is[i] = role
			if o.Join != nil && role == "engine" {
				others--
			}
		}
	}
	note, err := AssignRoles(o.Hosts, is, others)
	if err != nil {
		return nil, err
	}
	if note != "" {
		r.say(Event{State: "note", Text: note})
	}
	reach(ctx, r.all, r.Options)
	result := &Result{Findings: check(r.all, r.Options, r.id)}
	for _, f := range result.Findings {
		if f.Error {
			r.fail(f.Host, errors.New(f.Text))
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if o.Found != nil {
		o.Found(result.Findings)
	}
	good := healthy(r.all, result.Findings)
	founder, err := r.founder(good)
	if err != nil {
		result.Failed = o.Hosts
		return result, err
	}
	plans := r.plans(ctx, good, founder)
	for _, s := range good {
		result.Plans = append(result.Plans, HostPlan{s.Name, s.Role, plans[s]})
	}
	if o.DryRun {
		result.Failed = r.failures()
		return result, nil
	}
	err = r.execute(ctx, good, founder, plans)
	for _, s := range good {
		if len(plans[s]) > 0 && r.failed[s.Host] == nil {
			result.Changed++
		}
	}
	result.Failed = r.failures()
	if r.id != "" || founder != nil && r.failed[founder.Host] == nil {
		result.Cluster = r.Cluster
	}
	return result, err
}

func begin(o *Options) (*run, error) {
	r := &run{Options: o, explicit: o.Cluster != "", failed: map[*Host]error{}, secret: &answer{}}
	if err := o.defaults(); err != nil {
		return nil, err
	}
	for _, h := range o.Hosts {
		r.all = append(r.all, &Seen{Host: h})
	}
	return r, nil
}

// explicitRoles refuses what AssignRoles would refuse whatever the hosts are.
func explicitRoles(hosts []*Host, others int) error {
	if slices.ContainsFunc(hosts, func(h *Host) bool { return h.Role == "" }) {
		return nil
	}
	engines := 0
	for _, h := range hosts {
		if h.Role == "engine" {
			engines++
		}
	}
	if others > 0 {
		return nil // some may be engines already
	}
	return oddEngines(engines)
}

// look reaches and probes all hosts.
func (r *run) look(ctx context.Context) {
	each(ctx, r.Parallel, r.all, func(s *Seen) {
		called := s.String()
		r.say(Event{Host: called, Op: "look", State: "begun"})
		if s.Err = r.lookAt(ctx, s); s.Err == nil {
			s.name()
			r.say(Event{Host: called, Op: "look", State: "done"})
			return
		}
		r.say(Event{Host: called, Op: "look", State: "failed", Text: s.Err.Error()})
	})
}

func (r *run) lookAt(ctx context.Context, s *Seen) error {
	t, user, err := r.Dial(ctx, s.Host)
	if err != nil {
		return err
	}
	var ask func() (string, error)
	if r.SudoPassword != nil {
		ask = func() (string, error) {
			r.secret.once.Do(func() { r.secret.text, r.secret.err = r.SudoPassword() })
			return r.secret.text, r.secret.err
		}
	}
	if s.shell, err = become(ctx, t, user, ask); err != nil {
		t.Close()
		return err
	}
	s.Facts, err = probe(ctx, s.shell, r.Options)
	return err
}

func (r *run) hangUp() {
	for _, s := range r.all {
		if s.shell != nil {
			s.shell.Close()
		}
	}
}

func (r *run) say(e Event) {
	r.said.Lock()
	defer r.said.Unlock()
	r.Report(e)
}

func (r *run) fail(h *Host, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed[h] == nil {
		r.failed[h] = err
	}
}

func (r *run) failures() []*Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed []*Host
	for _, h := range r.Hosts {
		if r.failed[h] != nil {
			failed = append(failed, h)
		}
	}
	return failed
}

// founder is the host that a new cluster begins on; nil where one is there.
func (r *run) founder(good []*Seen) (*Seen, error) {
	if r.id != "" {
		return nil, nil
	}
	for _, s := range good {
		if s.Role == "engine" {
			return s, nil
		}
	}
	return nil, errors.New("no host that should be an engine can be one: mend what is said above, and run it again; nothing was changed")
}

// plans are the ops of each host.
func (r *run) plans(ctx context.Context, good []*Seen, founder *Seen) map[*Seen][]Op {
	nodes := map[string]*api.Node{}
	if founder == nil && slices.ContainsFunc(good, func(s *Seen) bool { return s.Facts.Status != nil }) || r.door != nil {
		if c, err := r.cluster(ctx, 10*time.Second); err == nil {
			if all, err := c.Nodes(ctx); err == nil {
				for _, n := range all {
					nodes[n.Id] = n
				}
			}
		}
	}
	plans := map[*Seen][]Op{}
	for _, s := range good {
		_, id, _ := s.Facts.member()
		plans[s] = plan(s, r.Options, s == founder, nodes[id])
	}
	return plans
}

// execute does what is planned: on the founder first, then everywhere at once.
func (r *run) execute(ctx context.Context, good []*Seen, founder *Seen, plans map[*Seen][]Op) error {
	rest := good
	if founder != nil {
		r.host(ctx, founder, plans[founder])
		if err := r.failed[founder.Host]; err != nil {
			for _, s := range r.all {
				r.fail(s.Host, errors.New("the cluster could not be founded"))
			}
			return fmt.Errorf("the cluster could not be founded on %s, so no other host can join: %w", founder, err)
		}
		rest = slices.DeleteFunc(slices.Clone(good), func(s *Seen) bool { return s == founder })
	}
	each(ctx, r.Parallel, rest, func(s *Seen) { r.host(ctx, s, plans[s]) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.credentials(ctx, good)
}

// credentials saves a context for whoever runs this.
func (r *run) credentials(ctx context.Context, good []*Seen) error {
	if r.Credentials == nil || r.Join != nil {
		return nil
	}
	c, err := r.cluster(ctx, r.Patience)
	if err != nil {
		return err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	err = r.Credentials(ctx, info.Cluster, func(ctx context.Context, name string, csr []byte) (*api.OperatorCredentials, error) {
		return r.operator(ctx, good, name, csr)
	})
	if err != nil {
		return fmt.Errorf("the hosts are nodes, but no context could be saved: %w", err)
	}
	return nil
}

// host does what is planned on one host, under its lock.
func (r *run) host(ctx context.Context, s *Seen, ops []Op) {
	if len(ops) == 0 {
		r.say(Event{Host: s.Name, State: "done", Text: "nothing to do"})
		return
	}
	h := &hostRun{run: r, Seen: s, ops: ops}
	if err := h.do(ctx); err != nil {
		r.fail(s.Host, err)
		text := err.Error()
		if said := h.log(ctx); said != "" {
			text += "\n" + said
		}
		r.say(Event{Host: s.Name, Op: h.at, State: "failed", Text: text})
		return
	}
	var words []string
	for _, op := range ops {
		words = append(words, op.Kind)
	}
	r.say(Event{Host: s.Name, State: "done", Text: strings.Join(words, ", ")})
}
