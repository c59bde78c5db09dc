package schedule

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// Request asks for a node for one task.
type Request struct {
	Task    *api.Task
	Service *api.Service
	Spec    *api.TaskSpec
	Pin     string // node id; empty: any
	PinWhy  string // what is there and holds it, for people; empty: the service is global
	// Leave is the node of a task that this one shall replace only where nodes
	// are used more alike then; empty: the task needs a node.
	Leave string
	Avoid string // node id: the last choice
	// Instead is the task whose room and ports this one gets on its node; nil:
	// none.
	Instead     *api.Task
	InsteadSpec *api.TaskSpec
}

// Decision is the answer to the request at the same position: a node, or the
// reason why there is none.
type Decision struct{ Node, Reason string }

// Place decides all requests at once, in their order, so that each sees the
// ones before it. tasks are those that take room now; specOf finds what a
// task runs (nil: unknown, takes no room).
func Place(nodes []*api.Node, tasks []*api.Task, specOf func(*api.Task) *api.TaskSpec, requests []Request) []Decision {
	p := newPlacer(nodes, tasks, specOf)
	p.vacate(requests)
	out := make([]Decision, len(requests))
	for from := 0; from < len(requests); {
		to := from + 1
		for to < len(requests) && alike(requests[from], requests[to]) {
			to++
		}
		if requests[from].Leave != "" {
			p.leave(requests[from:to], out[from:to])
		} else {
			p.group(requests[from:to], out[from:to])
		}
		from = to
	}
	return out
}

// alike requests differ in nothing that a filter or a score looks at.
func alike(a, b Request) bool {
	return a.Service.Id == b.Service.Id && a.Task.Version == b.Task.Version && a.Pin == b.Pin && a.Leave == b.Leave && a.Avoid == b.Avoid && a.Instead == nil && b.Instead == nil
}

// candidate is a node with what is taken of it.
type candidate struct {
	*api.Node
	at           int   // in the placer's nodes
	alone        bool  // there are no others
	cpus, memory int64 // reserved
	total        int   // tasks
	ports        map[string][]occupant
	// The group at hand:
	mine    int    // tasks of the service
	slots   int    // slots of the service whose newest task is here
	failing bool   // or to be avoided
	near    int    // slots of the service under the same spread values
	around  []*int // the counts that near is made of
}

// occupant is a task that has a port, on one address or (empty) on all.
type occupant struct{ task, ip string }

type placer struct {
	nodes  []*candidate
	byID   map[string]*candidate
	tasks  []*api.Task
	newest map[string]*api.Task // by slot
	// perService counts live tasks of a service on each node, perSlot only the
	// newest of each slot: what it replaces soon goes, and has no say in where
	// others are put.
	perService map[string]map[string]int
	perSlot    map[string]map[string]int
	failures   map[string]map[string]int
	paths      map[string][][]string // see domains; by spread keys, then as nodes
}

func newPlacer(nodes []*api.Node, tasks []*api.Task, specOf func(*api.Task) *api.TaskSpec) *placer {
	p := &placer{byID: map[string]*candidate{}, tasks: tasks, perService: map[string]map[string]int{}, perSlot: map[string]map[string]int{}, failures: map[string]map[string]int{}}
	for _, n := range nodes {
		c := &candidate{Node: n, alone: len(nodes) == 1}
		p.nodes = append(p.nodes, c)
		p.byID[n.Id] = c
	}
	slices.SortFunc(p.nodes, func(a, b *candidate) int { return cmp.Compare(a.Id, b.Id) })
	p.newest = newestOf(tasks)
	for i, c := range p.nodes {
		c.at = i
	}
	for _, t := range tasks {
		c := p.byID[t.NodeId]
		if c == nil {
			continue
		}
		if state.Ended(t.Status.GetState()) {
			if t.Status.State == api.TaskState_TASK_STATE_FAILED {
				count(p.failures, t.ServiceId+"@"+t.Version, t.NodeId)
			}
			continue
		}
		p.take(c, t.ServiceId, t.Id, specOf(t))
		if p.newest[t.SlotId] != t {
			p.perSlot[t.ServiceId][t.NodeId]--
		}
	}
	return p
}

// newestOf finds each slot's newest live task.
func newestOf(tasks []*api.Task) map[string]*api.Task {
	newest := map[string]*api.Task{}
	for _, t := range tasks {
		if n := newest[t.SlotId]; !state.Ended(t.Status.GetState()) && (n == nil || t.Attempt > n.Attempt) {
			newest[t.SlotId] = t
		}
	}
	return newest
}

// vacate takes the slots that requests are for out of the counts.
func (p *placer) vacate(requests []Request) {
	for _, r := range requests {
		if old := p.newest[r.Task.SlotId]; r.Leave == "" && old != nil && old.Id != r.Task.Id && p.byID[old.NodeId] != nil {
			p.perSlot[old.ServiceId][old.NodeId]--
			delete(p.newest, r.Task.SlotId)
		}
	}
}

func count(m map[string]map[string]int, key, node string) {
	if m[key] == nil {
		m[key] = map[string]int{}
	}
	m[key][node]++
}

func (p *placer) take(c *candidate, service, task string, s *api.TaskSpec) {
	c.total++
	count(p.perService, service, c.Id)
	count(p.perSlot, service, c.Id)
	if r := s.GetResources(); r != nil {
		c.cpus += r.CpusMilli
		c.memory += r.Memory
	}
	for _, port := range s.GetHostPorts() {
		if c.ports == nil {
			c.ports = map[string][]occupant{}
		}
		c.ports[portKey(port)] = append(c.ports[portKey(port)], occupant{task, port.HostIp})
	}
}

// badNode failures of one version on a node make the node the last choice.
const badNode = 3

// fails says that the version has failed too often on a node.
func (p *placer) fails(r Request, c *candidate) bool {
	return p.failures[r.Service.Id+"@"+r.Task.Version][c.Id] >= badNode
}

// group places requests that are alike.
func (p *placer) group(requests []Request, out []Decision) {
	first := requests[0]
	filters := filtersFor(first)
	var fit []*candidate
	refused := refusals{}
	nodes := p.nodes
	if first.Pin != "" {
		nodes = nil
		if c := p.byID[first.Pin]; c != nil {
			nodes = []*candidate{c}
		}
	}
	for _, c := range nodes {
		c.mine = p.perService[first.Service.Id][c.Id]
		c.slots = p.perSlot[first.Service.Id][c.Id]
		if why := explain(filters, c); why != "" {
			refused.add(why)
			continue
		}
		c.near = 0
		c.failing = c.Id == first.Avoid || p.fails(first, c)
		fit = append(fit, c)
	}
	queue := &byScore{nodes: fit}
	if spread := first.Service.Spec.GetPlacement().GetSpread(); len(spread) > 0 {
		queue.spread = true
		p.neighbourhoods(fit, first.Service.Id, spread)
	} else {
		heap.Init(queue)
	}
	for i, r := range requests {
		for queue.Len() > 0 {
			c := queue.best()
			if why := explain(filters, c); why != "" { // filled up by the group itself
				refused.add(why)
				queue.drop()
				continue
			}
			out[i].Node = c.Id
			p.take(c, r.Service.Id, r.Task.Id, r.Spec)
			c.mine++
			c.slots++
			queue.taken()
			break
		}
		if out[i].Node == "" {
			out[i].Reason = refused.text(len(p.nodes))
			if first.Pin != "" {
				out[i].Reason = "its node is gone"
				for why := range refused {
					out[i].Reason = pinned(first, nodes[0], why)
				}
			}
		}
	}
}

// Specs finds what a task runs, for Place.
func Specs(v state.View) func(*api.Task) *api.TaskSpec {
	known := map[[2]string]*api.TaskSpec{}
	return func(t *api.Task) *api.TaskSpec {
		id := [2]string{t.ServiceId, t.Version}
		s, ok := known[id]
		if !ok {
			s = v.Version(t.ServiceId, t.Version).GetTask()
			known[id] = s
		}
		return s
	}
}

// neighbourhoods gives each candidate the counts of the service's tasks on
// nodes that share its values of the spread keys; the first key weighs most.
func (p *placer) neighbourhoods(fit []*candidate, service string, spread []string) {
	counts := map[string]*int{}
	count := func(name string) *int {
		if counts[name] == nil {
			counts[name] = new(int)
		}
		return counts[name]
	}
	paths := p.domains(spread)
	for node, n := range p.perSlot[service] {
		if c := p.byID[node]; c != nil && n > 0 {
			for _, name := range paths[c.at] {
				*count(name) += n
			}
		}
	}
	for _, c := range fit {
		c.around = c.around[:0]
		for _, name := range paths[c.at] {
			c.around = append(c.around, count(name))
		}
	}
}

// domains names the nested groups of nodes that each node belongs to.
func (p *placer) domains(spread []string) [][]string {
	key := strings.Join(spread, "\x00")
	if all, known := p.paths[key]; known {
		return all
	}
	all := make([][]string, len(p.nodes))
	for i, c := range p.nodes {
		path := ""
		for _, key := range spread {
			path += "/" + spec.NodeValue(c.Node, key)
			all[i] = append(all[i], path)
		}
	}
	if p.paths == nil {
		p.paths = map[string][][]string{}
	}
	p.paths[key] = all
	return all
}

// byScore keeps the best candidate first: as a heap, since a task changes
// the score of its own node alone, or with spread, where it changes those of
// many, by looking at all.
type byScore struct {
	nodes  []*candidate
	spread bool
}

func (q *byScore) best() *candidate {
	if q.spread {
		least := 0
		for i, c := range q.nodes {
			c.near = 0
			for _, n := range c.around {
				c.near = c.near*10_000 + *n
			}
			if q.Less(i, least) {
				least = i
			}
		}
		q.Swap(0, least)
	}
	return q.nodes[0]
}

// drop takes the best one away.
func (q *byScore) drop() {
	if !q.spread {
		heap.Pop(q)
		return
	}
	q.Swap(0, q.Len()-1)
	q.Pop()
}

// taken says that the best one got a task.
func (q *byScore) taken() {
	if !q.spread {
		heap.Fix(q, 0)
		return
	}
	for _, n := range q.nodes[0].around {
		*n++
	}
}

func (q *byScore) Len() int      { return len(q.nodes) }
func (q *byScore) Swap(i, j int) { q.nodes[i], q.nodes[j] = q.nodes[j], q.nodes[i] }
func (q *byScore) Push(x any)    { q.nodes = append(q.nodes, x.(*candidate)) }
func (q *byScore) Pop() any {
	last := len(q.nodes) - 1
	c := q.nodes[last]
	q.nodes = q.nodes[:last]
	return c
}

func (q *byScore) Less(i, j int) bool {
	a, b := q.nodes[i], q.nodes[j]
	if a.failing != b.failing {
		return b.failing
	}
	return cmp.Or(cmp.Compare(a.near, b.near), cmp.Compare(a.slots, b.slots), cmp.Compare(a.total, b.total), strings.Compare(a.Id, b.Id)) < 0
}
