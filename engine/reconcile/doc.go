// Package reconcile says what has to be done so that what runs becomes what
// is wanted: slots, the tasks in them, restarts with backoff, dependencies,
// jobs, and the removal of what is no longer declared.
//
// It is pure and level-triggered: Service looks at all of one service at one
// moment, may be called at any time and any number of times, and at the
// fixpoint returns an empty plan. What it can't do yet it explains in the
// Wait of a task.
package reconcile
