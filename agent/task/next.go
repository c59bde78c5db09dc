package task

import "orch/engine/api"

// Action is what to do with a task now.
type Action int

const (
	Rest    Action = iota // nothing, until something changes
	Prepare               // get what it needs
	Start                 // make it run
	Watch                 // it runs: check its health, wait for its end
	Stop                  // end it
	Finish                // it has ended: report how
	Remove                // take away what is left of it
	Forget                // nothing is left of it
)

// Knowledge is all that Next looks at.
type Knowledge struct {
	Desired  api.TaskDesired
	State    api.TaskState // as last reported
	Removed  bool          // the engine has forgotten the task
	Prepared bool          // Prepare has succeeded since the agent began
	Hold     bool          // it starts later
	Drained  bool          // once it is to stop, it may
	Phase    Phase         // as the runtime sees it
}

// Next is the task's state machine. States only advance, so a task that ran
// once never starts again: what disappeared has ended.
func Next(k Knowledge) Action {
	running := k.Phase == Running
	switch {
	case k.Removed && running:
		return Stop
	case k.Removed && k.Phase != Absent:
		return Remove
	case k.Removed:
		return Forget
	case ended(k.State) && running:
		return Stop
	case ended(k.State):
		return Rest
	case k.Desired == api.TaskDesired_TASK_DESIRED_STOP && running && !k.Drained:
		return Watch // it serves what is in flight
	case k.Desired == api.TaskDesired_TASK_DESIRED_STOP && running:
		return Stop
	case k.Desired == api.TaskDesired_TASK_DESIRED_STOP, k.Phase == Exited:
		return Finish
	case running:
		return Watch
	case k.State >= api.TaskState_TASK_STATE_STARTING:
		return Finish // it ran, and is gone
	case !k.Prepared:
		return Prepare
	case k.Hold:
		return Rest
	}
	return Start
}

func ended(s api.TaskState) bool { return s >= api.TaskState_TASK_STATE_COMPLETE }

// End is the state and the words with which a task ends.
func End(k Knowledge, o Observed) (api.TaskState, string) {
	switch {
	case k.Desired == api.TaskDesired_TASK_DESIRED_STOP:
		return api.TaskState_TASK_STATE_STOPPED, ""
	case o.Phase == Absent:
		return api.TaskState_TASK_STATE_FAILED, "it disappeared: something other than orch removed it"
	case o.Phase == Created:
		return api.TaskState_TASK_STATE_FAILED, "it never ran: something other than orch made it anew"
	case o.Error != "":
		return api.TaskState_TASK_STATE_FAILED, o.Error
	case o.ExitCode == 0:
		return api.TaskState_TASK_STATE_COMPLETE, "exited with code 0"
	case o.ExitCode < 0:
		return api.TaskState_TASK_STATE_FAILED, "ended with an unknown exit code"
	}
	return api.TaskState_TASK_STATE_FAILED, exited(o.ExitCode)
}
