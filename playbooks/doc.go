// Package playbooks evaluates playbooks: a pure function of a bundle (the
// sources, content-hashed) and params, whose result is an api.StackSpec.
//
// Eval reads a playbook from disk and makes its bundle, or evaluates a bundle
// that someone else made; both give the same spec. Nothing else comes in: no
// clock, no environment, no network, and no file but those below the
// playbook's root. Sandbox does the same in a child process whose memory and
// time are bounded, for engines, which can't trust what they evaluate.
//
// Strategies asks the strategy of a rollout which op comes next: it calls the
// function again from its top, and what the rollout's journal holds isn't done
// twice. Worker does so in a child process, for engines. lib/rollout.star has
// the strategies that come with orch.
//
// All that is wrong with a playbook comes back as one Error with a Diagnostic
// for each mistake. Everything here is safe for concurrent use.
package playbooks
