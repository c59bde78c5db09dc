package builtins

// elsewhere answers the words of `docker run` and Compose that service() and
// job() don't take: each says what to do instead, or that orch lacks it.
var elsewhere = map[string]string{}

func init() {
	for _, group := range []struct {
		words []string
		say   string
	}{
		{[]string{"environment", "e", "envs"}, "use env = {...}"},
		{[]string{"env_file"}, "use env, or a config with path"},
		{[]string{"volumes", "volume", "v", "mount", "volumes_from"}, "use mounts = [mount(...), bind(...), tmpfs(...)]"},
		{[]string{"tmpfs"}, "use mounts = [tmpfs(...)]"},
		{[]string{"network", "net"}, "use networks = [network(...)]"},
		{[]string{"network_mode"}, "orch doesn't offer Docker's network modes; use networks, or runtime = \"process\" for the host's network"},
		{[]string{"publish", "p", "expose", "publish_all"}, "use ports = [port(TARGET, publish = PORT)]"},
		{[]string{"healthcheck", "health_cmd"}, "use health = health.http/tcp/cmd(...)"},
		{[]string{"deploy"}, "use replicas, resources, update, restart and constraints directly"},
		{[]string{"placement"}, "use constraints, spread and max_per_node"},
		{[]string{"scale"}, "use replicas"},
		{[]string{"restart_policy"}, "use restart = restart(...)"},
		{[]string{"update_config"}, "use update = rollout(...)"},
		{[]string{"rollback_config"}, "use rollback = rollout(...)"},
		{[]string{"working_dir", "w"}, "use workdir"},
		{[]string{"stop_grace_period", "stop_timeout"}, "use stop_grace"},
		{[]string{"memory", "mem_limit", "m", "cpus", "cpu_shares", "memory_reservation", "mem_reservation", "cpu_quota", "cpuset_cpus", "cpuset", "pids_limit"}, "use resources = resources(cpus, memory, cpus_limit, memory_limit, pids)"},
		{[]string{"memory_swap", "memory_swappiness", "memswap_limit", "oom_kill_disable", "oom_score_adj", "blkio_weight", "device_read_bps", "device_write_bps", "device_cgroup_rules", "cgroup_parent", "cgroupns"}, "orch doesn't offer this of Docker's resource controls"},
		{[]string{"logging", "log_driver", "log_opt"}, `use log = {"driver": ..., "options": {...}}`},
		{[]string{"label"}, "use labels"},
		{[]string{"pull_policy"}, "use pull"},
		{[]string{"dns", "dns_search", "dns_opt", "add_host", "extra_hosts"}, "orch doesn't offer Docker's name resolution settings; services on one network find each other by name"},
		{[]string{"links", "link", "network_alias", "aliases"}, "services on one network find each other by name; use x.url(port) or x.host"},
		{[]string{"container_name"}, "tasks have names of their own; a service can have many"},
		{[]string{"ip", "ip6", "mac_address"}, "orch doesn't offer fixed addresses of containers"},
		{[]string{"pid", "pid_mode", "ipc", "ipc_mode", "uts", "userns", "userns_mode", "isolation"}, "orch doesn't offer sharing or choosing Docker's namespaces"},
		{[]string{"platform"}, `use constraints = ["node.arch == ..."]`},
		{[]string{"group_add", "storage_opt", "domainname", "cidfile", "detach_keys", "sig_proxy", "disable_content_trust"}, "orch doesn't offer this option of `docker run`"},
		{[]string{"rm", "detach", "d", "interactive", "i", "stdin_open", "attach"}, "orch runs every task in the background and removes it itself"},
		{[]string{"build"}, "orch doesn't build images; push one and name it with image"},
		{[]string{"profiles", "extends"}, "write an if, or a function: it is Starlark"},
	} {
		for _, w := range group.words {
			elsewhere[w] = group.say
		}
	}
}
