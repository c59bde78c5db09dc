package builtins

import (
	"fmt"

	"go.starlark.net/starlark"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

var resourcesFunc = &Func{
	Name:    "resources",
	Doc:     "What a task reserves on its node, and what it may use at most.",
	Returns: "resources",
	Params: []Param{
		{Name: "cpus", Kind: cpusKind, Default: "None", Doc: "CPUs reserved; a task goes only where they are free."},
		{Name: "memory", Kind: sizeKind, Default: "None", Doc: "Memory reserved."},
		{Name: "cpus_limit", Kind: cpusKind, Default: "None", Doc: "CPUs at most; None means no limit."},
		{Name: "memory_limit", Kind: sizeKind, Default: "None", Doc: "Memory at most; a task that takes more is killed."},
		{Name: "pids", Kind: intKind(1, 1<<22), Default: "None", Doc: "Processes and threads at most."},
	},
	Example: `resources(cpus = 0.5, memory = "256Mi", memory_limit = "512Mi")`,
	build: func(c *call) (starlark.Value, error) {
		r := &api.Resources{CpusMilli: get[int64](c, "cpus"), Memory: get[int64](c, "memory"), CpusLimitMilli: get[int64](c, "cpus_limit"),
			MemoryLimit: get[int64](c, "memory_limit"), Pids: int64(c.int("pids")), Origin: c.origin()}
		if r.MemoryLimit > 0 && r.Memory > r.MemoryLimit {
			c.errorf("memory_limit", "memory_limit is less than memory")
		}
		if r.CpusLimitMilli > 0 && r.CpusMilli > r.CpusLimitMilli {
			c.errorf("cpus_limit", "cpus_limit is less than cpus")
		}
		return c.made("resources", "", r, nil), nil
	},
}

var restartFunc = &Func{
	Name:    "restart",
	Doc:     "When tasks that ended are replaced, with exponential backoff that starts again after a healthy period.",
	Returns: "restart",
	Params: []Param{
		{Name: "condition", Kind: choice("any", "on-failure", "none"), Default: `"any"`, Position: true, Doc: "Which ends count."},
		{Name: "delay", Kind: durationKind, Default: `"1s"`, Doc: "Wait before the first restart; doubles with each."},
		{Name: "max_delay", Kind: durationKind, Default: `"1m"`, Doc: "Longest wait."},
		{Name: "max_attempts", Kind: countKind, Default: "0", Doc: "Restarts at most; 0 means no limit."},
		{Name: "window", Kind: durationKind, Default: "None", Doc: "Only restarts within this time count; None counts all."},
	},
	Elsewhere: map[string]string{"name": "use condition"},
	Example:   `restart("on-failure", max_attempts = 5)`,
	build: func(c *call) (starlark.Value, error) {
		r := &api.RestartPolicy{Condition: c.str("condition"), Delay: c.duration("delay"), MaxDelay: c.duration("max_delay"),
			MaxAttempts: int32(c.int("max_attempts")), Window: c.duration("window"), Origin: c.origin()}
		if r.Delay.AsDuration() > r.MaxDelay.AsDuration() {
			c.errorf("max_delay", "max_delay is less than delay")
		}
		return c.made("restart", r.Condition, r, nil), nil
	},
}

// dependencyFunc makes started, ready and done.
func dependencyFunc(condition, doc string) *Func {
	return &Func{
		Name: condition, Doc: doc, Returns: "dependency",
		Params: []Param{
			{Name: "of", Kind: Kind{Name: "service or job", Stub: "service_", read: func(v starlark.Value) (any, error) {
				if s, ok := v.(*Service); ok {
					return s, nil
				}
				return nil, wrong("a service or job", v)
			}}, Position: true, Doc: "What to wait for."},
			{Name: "timeout", Kind: durationKind, Default: `"5m"`, Doc: "How long to wait before it counts as failed."},
		},
		Example: fmt.Sprintf("depends_on = [%s(db)]", condition),
		build: func(c *call) (starlark.Value, error) {
			d := &api.Dependency{Condition: condition, Timeout: c.duration("timeout"), Origin: c.origin()}
			v := c.made("dependency", condition, d, nil)
			if s := get[*Service](c, "of"); s != nil {
				d.Service, v.of = s.spec.Name, s
				if condition == "done" && !s.isJob() {
					c.errorf("of", "only jobs are ever done; %q is a service", s.spec.Name)
				}
			}
			return v, nil
		},
	}
}

var dependencyFuncs = []*Func{
	dependencyFunc("started", "Wait until all tasks of a service run."),
	dependencyFunc("ready", "Wait until all tasks of a service are healthy."),
	dependencyFunc("done", "Wait until a job has succeeded."),
}

var (
	defaultDelay    = durationpb.New(1e9)
	defaultMaxDelay = durationpb.New(60e9)
	// defaultRestart is restart() without arguments. Specs share it: nobody
	// changes it.
	defaultRestart = &api.RestartPolicy{Condition: "any", Delay: defaultDelay, MaxDelay: defaultMaxDelay}
)
