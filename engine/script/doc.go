// Package script holds what the whole engine must do, as transcripts in
// testdata/*.txt that a reader can follow before knowing any Go, played through
// in package simulate, and as properties of random worlds.
//
// It exists for tests.
//
// # What a cluster must do, and where it is shown
//
// Behaviours that need raft, certificates, containers or requests under way
// are shown elsewhere; these are decisions. Each line ends with transcripts
// of testdata and tests of Go.
//
//	node lost: down, tasks replaced; back: no duplicates:
//	    node_lost_and_back node_back_without_duplicates node_blinks reschedule_after
//	partitioned and healed: nothing restarted needlessly:
//	    partitioned_and_healed
//	node removed:
//	    node_removed global_follows_nodes
//	drain moves replicated and stops global tasks, pause keeps them, active takes new ones:
//	    drain_pause_activate drain global job_on_a_drained_node
//	drain without an outage, also of one replica, within what the service can spare:
//	    drain drain_stop_first drain_keeps_min_available drain_nowhere_to_go
//	    drain_in_a_rollout drain_waits_for_dependencies TestMovesKeepAvailability
//	global: new nodes, removed nodes, constraints:
//	    global global_with_constraint global_follows_nodes
//	rolling update: parallelism, delay, order:
//	    rolling_stop_first rolling_start_first rolling_all_at_once TestStopFirstAvailability
//	nothing lost: a task stops once its successor is in rotation on every node, nothing new goes
//	to it from any, and nothing is in flight to it:
//	    handover_waits_for_every_node drain_waits_for_what_is_in_flight drain_of_what_has_no_ports
//	failed update: pause, continue, rollback, ratio, monitor:
//	    failure_pauses failure_pauses_single_replica failure_continues failure_rolls_back
//	    failure_rolls_back_late failure_ratio a_batch_fails_early rollout_times_out
//	    pause_resume_abort stop_in_a_rollout
//	whatever a strategy asks for: min_available, max_surge, the deadline:
//	    strategies_min_available_is_kept strategies_deadline pain_nomad_8538_min_available
//	    pain_argo_3284_steps_keep_to_max_surge TestBoundsHoldAgainstAnyScript
//	strategies of the library:
//	    strategies_canary_is_promoted strategies_canary_is_bad strategies_canary_of_a_global_service
//	    strategies_blue_green strategies_one_zone_at_a_time strategies_traffic
//	    TestStrategiesSurviveAnyLeader
//	one's own strategies: probes, adaptive steps, signals, jobs around them, mistakes in them:
//	    strategies_progressive strategies_analysis strategies_jobs_around
//	    strategies_pause_resume_retry strategies_broken strategies_begun_again_while_tasks_stop
//	a release is one thing: order, all or nothing, what goes goes last:
//	    release_goes_back_in_reverse release_new_service_fails release_removes_last
//	    release_pauses release_continues release_max_parallel release_queued
//	    release_first_never_goes_back release_stops_before_what_is_new
//	    release_gives_a_removed_service_back
//	    scale_after_a_failure_that_continued stop_longer_than_a_deadline drain_counts_what_gave_up
//	    release_after_one_that_failed release_paused_and_aborted
//	    failure_continues_in_a_release TestReleaseIsAllOrNothing
//	what hurts in other orchestrators (by their issues):
//	    pain_nomad_10882_rollback_skips_the_canary pain_nomad_3836_rollback_kills_nothing_healthy
//	    pain_nomad_8439_replacements_are_of_the_stable_version pain_nomad_10098_never_three_versions
//	    pain_nomad_10991_pulling_is_not_unhealthy pain_moby_34111_rollback_keeps_healthy_tasks
//	    pain_moby_34139_a_drain_is_no_downtime pain_kubernetes_23211_no_progress_is_taken_back
//	    pain_kubernetes_22368_a_config_change_is_a_rollout
//	rollback by its own configuration, a failed one pauses:
//	    failure_rolls_back failed_rollback_pauses superseded superseded_by_the_old_version
//	scaling restarts nothing, scale-down keeps the balance:
//	    slots_and_scale scaling_restarts_nothing_in_a_volume scale_down_keeps_the_balance
//	    scale_down_by_spread scale_down_drops_what_does_not_serve scale_during_a_rollout
//	    scale_after_a_rollback
//	restart conditions, delays, attempts, window; a new version counts anew:
//	    restart_conditions restart_backoff restart_max_attempts restart_max_delay restart_window
//	running only once healthy, unhealthy ones replaced:
//	    readiness_and_liveness
//	placement: constraints, platform, spread, limits, ports, resources, failing nodes:
//	    constraints_and_eviction platform spread spread_over_two_levels max_per_node host_ports
//	    ports_of_a_node_come_free placement_refusals failing_node_comes_last local_volume
//	    TestPlaceNeverOversubscribes
//	eviction on a label's or a role's change, gently:
//	    constraints_and_eviction label_removed_evicts_gently role_changed_evicts
//	what fits nowhere says why, and starts once a node fits:
//	    placement_refusals constraints_and_eviction drain_nowhere_to_go
//	rebalancing, on demand:
//	    rebalance_after_a_node_returned rebalance_stop_first rebalance_that_fails
//	    rebalance_overtaken TestRebalance TestRebalanceCarriedOut
//	jobs: completions, concurrency, retries, timeout, a new run on update, schedules:
//	    jobs job_retries job_timeout job_new_version_under_way job_schedule
//	    job_on_a_drained_node dependencies_on_a_job
//	service removed: tasks gone before what they used:
//	    removal_order remove_stack mode_changes stop_and_start
//	leader killed: counts, delays and deadlines go on where they were:
//	    leader_killed leader_killed_in_a_drain TestLeaderKilledAnywhere
//	    TestLeaderKilledWhileMoving
//	start order:
//	    dependencies dependency_after_backoff
//	what is kept:
//	    releases_kept tasks_kept
package script
