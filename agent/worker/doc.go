// Package worker runs the tasks that its node is assigned: it compares what
// should run with what runtimes see, carries out what task.Next says, one
// goroutine a task, and reports statuses. It keeps tasks running when the
// engine is away, and adopts what it finds after a restart.
package worker
