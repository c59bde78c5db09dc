// Package process runs tasks as supervised processes of this host: no Docker
// and, unless a task asks for more, no root.
//
// Each task has a small supervisor, the shim: this program again, in a
// session of its own, so that it outlives the agent. It starts the command in
// a process group, keeps its log, reaps what the command leaves behind and
// records how it ended. A Runtime holds nothing: tasks are found by their
// folders, processes by id and start time. It may be used from any goroutine.
//
//	<Dir>/tasks/<task>/launch.json  what to run (0600)
//	                   state.json   shim and child, by pid and start time
//	                   exit.json    how it ended
//	                   log, log.1, log.2   10 MiB each, "TIME STREAM F|P TEXT"
//	                   work/        working folder where the spec names none
//	<Dir>/volumes/<stack>/<volume>
//
// Mounts, and files at paths outside the working folder, need root: the
// command then lives in a mount namespace of its own. Where a target doesn't
// exist on the host, the deepest folder that does is replaced there by a
// tmpfs that shows all the folder's entries, so nothing is left on the host;
// what the task creates directly in that folder is gone with the task.
// Without root a file is linked into the working folder. Every file's place
// is also in ORCH_SECRET_<NAME> or ORCH_CONFIG_<NAME>, every volume's in
// ORCH_MOUNT_<NAME> (upper case, "_" for other signs).
package process
