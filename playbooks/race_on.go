//go:build race

package playbooks

const raceEnabled = true
