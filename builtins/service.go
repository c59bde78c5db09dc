package builtins

import (
	"go.starlark.net/starlark"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/spec"
)

// running are the parameters that services and jobs share.
var running = []Param{
	{Name: "runtime", Kind: choice("docker", "process"), Default: "None", Doc: "docker: a container. process: a program on the host itself, which must be installed there. None means docker where an image is given, else process."},
	{Name: "entrypoint", Kind: argvKind, Default: "None", Doc: "Replaces the image's entrypoint."},
	{Name: "env", Kind: dict(scalarKind), Default: "{}", Doc: "Environment. Values may hold url()s; None leaves a name out."},
	{Name: "networks", Kind: list(kindOf("network")), Default: "[]", Doc: `Networks to join; none means one named "default". Processes share their host's.`},
	{Name: "mounts", Kind: list(kindOf("mount")), Default: "[]", Doc: "From mount(), bind() and tmpfs()."},
	{Name: "secrets", Kind: list(kindOf("secret")), Default: "[]", Doc: "Secrets that its tasks get as files."},
	{Name: "configs", Kind: list(kindOf("config")), Default: "[]", Doc: "Configs that its tasks get as files."},
	{Name: "resources", Kind: kindOf("resources"), Default: "None", Doc: "Reservations and limits."},
	{Name: "constraints", Kind: list(constraintKind), Default: "[]", Doc: `Nodes that will do, all must hold: "node.labels.disk == ssd"; also !=, >=, in (a, b), or. Keys: node.id, node.hostname, node.role, node.os, node.arch, node.labels.NAME.`},
	{Name: "depends_on", Kind: list(dependencyKind), Default: "[]", Doc: "What must be so before its tasks start: started(x), ready(x), done(job)."},
	{Name: "user", Kind: scalarKind, Default: "None", Doc: "User, or user:group, by name or number."},
	{Name: "workdir", Kind: textKind, Default: "None", Doc: "Working directory."},
	{Name: "hostname", Kind: textKind, Default: "None", Doc: "Host name inside the container."},
	{Name: "labels", Kind: dict(scalarKind), Default: "{}", Doc: "Labels of the service and its containers."},
	{Name: "stop_signal", Kind: signalKind, Default: `"SIGTERM"`, Doc: "Signal that asks a task to end."},
	{Name: "reschedule_after", Kind: durationKind, Default: "None", Doc: "How long a task's node may be down before the task is replaced elsewhere; None means 2s. Longer suits what is slow to move, or hosts that reboot."},
	{Name: "stop_grace", Kind: durationKind, Default: `"10s"`, Doc: "Time between that and SIGKILL."},
	{Name: "init", Kind: boolKind, Default: "False", Doc: "Run an init that reaps processes as PID 1."},
	{Name: "cap_add", Kind: list(textKind), Default: "[]", Doc: "Linux capabilities to add."},
	{Name: "cap_drop", Kind: list(textKind), Default: "[]", Doc: "Linux capabilities to take away."},
	{Name: "devices", Kind: list(textKind), Default: "[]", Doc: `Host devices: "/dev/a[:/dev/b[:rwm]]".`},
	{Name: "gpus", Kind: gpusKind, Default: "None", Doc: `"all" or a number of GPUs.`},
	{Name: "privileged", Kind: boolKind, Default: "False", Doc: "All capabilities and devices of the host."},
	{Name: "sysctls", Kind: dict(scalarKind), Default: "{}", Doc: "Kernel parameters of the container."},
	{Name: "ulimits", Kind: dict(ulimitKind), Default: "{}", Doc: `Limits by name: a number or "soft:hard".`},
	{Name: "security_opt", Kind: list(textKind), Default: "[]", Doc: "Docker's security options."},
	{Name: "shm_size", Kind: sizeKind, Default: "None", Doc: "Size of /dev/shm."},
	{Name: "read_only", Kind: boolKind, Default: "False", Doc: "The container's root file system can't be written."},
	{Name: "tty", Kind: boolKind, Default: "False", Doc: "Give the program a terminal."},
	{Name: "log", Kind: logKind, Default: "None", Doc: `Where its output goes: {"driver": "json-file", "options": {"max-size": "10m"}}.`},
	{Name: "pull", Kind: choice("missing", "always", "never"), Default: `"missing"`, Doc: "When to pull the image."},
}

var serviceFunc = &Func{
	Name: "service",
	Doc: `A service: so many tasks that run until the service is removed.
Attributes: .name, .image, .replicas, .host (its address where the reader's task runs), .url(port, scheme = "http"), and .with_(...), which returns a changed copy.`,
	Returns: "service",
	Params: append([]Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack: a-z, 0-9 and -, at most 63."},
		{Name: "image", Kind: textKind, Default: "None", Doc: "Container image. Ignored by runtime \"process\", so that one playbook can serve both."},
		{Name: "mode", Kind: choice("replicated", "global"), Default: `"replicated"`, Doc: "replicated: `replicas` tasks anywhere. global: one task on every node."},
		{Name: "replicas", Kind: countKind, Default: "1", Doc: "Number of tasks."},
		{Name: "command", Kind: argvKind, Default: "None", Doc: "Program and arguments; no shell. In a container, arguments to its entrypoint."},
		{Name: "ports", Kind: portsKind, Default: "[]", Doc: "Ports it listens on: port() or ints."},
		{Name: "health", Kind: kindOf("health"), Default: "None", Doc: "Readiness: in or out of rotation; gates rollouts and ready()."},
		{Name: "liveness", Kind: kindOf("health"), Default: "None", Doc: "A task that fails it is replaced."},
		{Name: "spread", Kind: list(textKind), Default: "[]", Doc: `Node keys to spread tasks over: "node.labels.zone".`},
		{Name: "max_per_node", Kind: countKind, Default: "0", Doc: "Tasks a node at most; 0 means no limit."},
		{Name: "update", Kind: kindOf("rollout"), Default: "None", Doc: "How a new version is rolled out; None means rollout()."},
		{Name: "rollback", Kind: kindOf("rollout"), Default: "None", Doc: "How a failed one is rolled back; None means in the order and parallelism of update, without watching tasks that are known to be good."},
		{Name: "restart", Kind: kindOf("restart"), Default: "None", Doc: "When ended tasks are replaced; None means restart()."},
		{Name: "drain", Kind: durationKind, Default: `"10s"`, Doc: "How long connections and requests to a task that is out of rotation may go on before the stop signal; without any, none of it is waited for."},
	}, running...),
	Elsewhere: elsewhere,
	Example: `web = service(
    "web",
    image = "nginx:1.29",
    replicas = 3,
    ports = [port(80, publish = 8080)],
    health = health.http("/", port = 80),
)`,
	build: func(c *call) (starlark.Value, error) { return c.service(), nil },
}

var jobFunc = &Func{
	Name:    "job",
	Doc:     "A job: tasks that run to their end, once a version, by schedule, or when a rollout runs it.",
	Returns: "job",
	Params: append([]Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack: a-z, 0-9 and -, at most 63."},
		{Name: "image", Kind: textKind, Default: "None", Doc: "Container image."},
		{Name: "command", Kind: argvKind, Default: "None", Doc: "Program and arguments; no shell. Needed without an image."},
		{Name: "schedule", Kind: cronKind, Default: "None", Doc: "When, as cron's five fields in UTC; None means once for each version."},
		{Name: "completions", Kind: intKind(1, 100000), Default: "1", Doc: "Tasks that must succeed."},
		{Name: "parallelism", Kind: intKind(1, 100000), Default: "1", Doc: "Tasks that run at once."},
		{Name: "retries", Kind: countKind, Default: "0", Doc: "New attempts at most for a task that failed."},
		{Name: "on_demand", Kind: boolKind, Default: "False", Doc: "Run only when a rollout runs it: by r.run(), or as one of rollout(before = ..., after = ...), whose jobs are so by themselves."},
		{Name: "timeout", Kind: durationKind, Default: `"1h"`, Doc: "How long the whole job may take."},
	}, running...),
	Elsewhere: elsewhere,
	Example: `migrate = job("migrate", image = "app:2", command = ["migrate", "up"], retries = 2)
web = service("web", image = "app:2", depends_on = [done(migrate)])`,
	build: func(c *call) (starlark.Value, error) { return c.service(), nil },
}

// service makes a service or a job of a call that was unpacked.
func (c *call) service() *Service {
	t := c.task()
	s := &api.ServiceSpec{Name: c.str("name"), Task: t, Placement: &api.Placement{Constraints: c.strings("constraints")}, Labels: c.dict("labels"), Origin: c.origin()}
	v := &Service{spec: s, image: c.str("image"), call: c}
	if c.has("name") && !validServiceName(s.Name) {
		c.errorf("name", "name %q: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends", s.Name)
	}
	s.RescheduleAfter = c.duration("reschedule_after")
	for i, d := range get[[]any](c, "depends_on") {
		d := d.(*Value)
		dep := d.spec.(*api.Dependency)
		if of, ok := d.of.(*Service); ok && of.spec.Name == s.Name && s.Name != "" {
			c.errorf("depends_on", "depends_on[%d]: %q can't wait for itself", i, s.Name)
		}
		s.DependsOn = append(s.DependsOn, dep)
	}
	if c.fn.Name == "job" {
		c.jobPart(s)
	} else {
		c.servicePart(s)
	}
	c.runtimeRules(s)
	c.run.made = append(c.run.made, named{v, c.fn.Name, s.Name, c.at})
	v.bad = c.bad
	c.keep()
	return v
}

func (c *call) jobPart(s *api.ServiceSpec) {
	s.Mode = "job"
	s.Task.Drain = durationpb.New(0)
	s.Restart = &api.RestartPolicy{Condition: "none", Delay: defaultDelay, MaxDelay: defaultMaxDelay}
	s.Update, s.Rollback = sharedRollouts["stop-first"], sharedRollbacks["stop-first"]
	s.Job = &api.JobPolicy{Schedule: c.str("schedule"), Completions: int32(c.int("completions")), Parallelism: int32(c.int("parallelism")),
		Retries: int32(c.int("retries")), Timeout: c.duration("timeout"), OnDemand: c.bool("on_demand")}
	if c.has("on_demand") && s.Job.OnDemand && s.Job.Schedule != "" {
		c.errorf("on_demand", "on_demand: a job with a schedule runs by it; leave one of the two out")
	}
}

func (c *call) servicePart(s *api.ServiceSpec) {
	t := s.Task
	s.Mode = c.str("mode")
	t.Drain = c.duration("drain")
	if s.Mode == "global" {
		if c.has("replicas") {
			c.errorf("replicas", "a global service runs one task on every node, so replicas can't be given")
		}
	} else {
		s.Replicas = int32(c.int("replicas"))
	}
	for _, p := range get[[]any](c, "ports") {
		port, ok := p.(*api.PortSpec)
		if !ok {
			continue
		}
		if port.Origin == "" { // an int
			port.Origin = s.Origin
		}
		s.Ports = append(s.Ports, port)
	}
	t.Health, t.Liveness = specOf[*api.HealthCheck](c, "health"), specOf[*api.HealthCheck](c, "liveness")
	s.Placement.Spread, s.Placement.MaxPerNode = c.strings("spread"), int32(c.int("max_per_node"))
	for _, key := range s.Placement.Spread {
		if _, err := spec.ParseConstraint(key + " == x"); err != nil {
			c.errorf("spread", "spread: %q is not a node key such as node.labels.zone", key)
		}
	}
	if s.Restart = specOf[*api.RestartPolicy](c, "restart"); s.Restart == nil {
		s.Restart = defaultRestart
	}
	t.HostPorts = hostPorts(t.Runtime, s.Ports)
	s.Update = c.rolloutOf("update", s)
	s.Rollback = c.rolloutOf("rollback", s)
}

// hostPorts are the ports that a task itself occupies: a process binds on
// its host, a container only where it was told to.
func hostPorts(runtime string, ports []*api.PortSpec) []*api.HostPort {
	var all []*api.HostPort
	for _, p := range ports {
		h := &api.HostPort{Port: p.Publish, Target: p.Target, Protocol: "tcp", HostIp: p.HostIp}
		if p.Protocol == "udp" {
			h.Protocol = "udp"
		}
		switch {
		case runtime == "process":
			h.Port = p.Target
			if p.Mode != "host" {
				h.HostIp = ""
			}
		case p.Mode != "host":
			continue
		}
		all = append(all, h)
	}
	return all
}

// specOf is the message of a value that was given, nil for None.
func specOf[T any](c *call, name string) T {
	var none T
	if v := get[*Value](c, name); v != nil {
		return v.spec.(T)
	}
	return none
}
