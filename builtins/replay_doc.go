package builtins

// rAttributes document what of r isn't called.
var rAttributes = []*Func{
	{Name: "r", Returns: "r", attribute: true, Doc: `What a strategy, def NAME(r, ...), works with: see rollout(strategy = ...).
The function is called again from its top whenever something is to be done. What it did before isn't done twice: each call of r returns what came of it, kept in the log, until the first whose end isn't known. So nothing is lost when the leader changes, and the function must always do the same: it has neither clock nor network, only r.
Every r.do_something() returns a result with .ok, .reason (why not), .slots, .failed and .removed (lists of slots), and waits until that is known. Every path must end with r.succeed() or r.fail().`,
		Example: `def careful(r, bake = "5m"):
    for batch in r.batches([1, "25%"]):
        r.replace(batch)
        if not r.wait_healthy(batch, min_healthy = bake).ok:
            return r.fail("rollback", "unhealthy")
    return r.succeed()`},
	{Name: "r.old", Returns: "struct", attribute: true, Doc: "The service as it was: its fields as service() names them, and .version."},
	{Name: "r.new", Returns: "struct", attribute: true, Doc: "The service as it shall be: its fields as service() names them, and .version."},
	{Name: "r.service", Returns: "str", attribute: true, Doc: "The service's name."},
	{Name: "r.mode", Returns: "str", attribute: true, Doc: "replicated or global."},
	{Name: "r.replicas", Returns: "int", attribute: true, Doc: "How many slots are wanted; of a global service, how many nodes it runs on."},
}

// rFuncs are the tables of r.
func rFuncs() []*Func {
	all := rAttributes
	for _, m := range rMethods {
		all = append(all[:len(all):len(all)], m.table)
	}
	return all
}
