package spec

import "orch/engine/api"

// LocalVolume is the first mount of a volume that exists on one node only;
// nil: there is none.
func LocalVolume(s *api.TaskSpec) *api.Mount {
	for _, m := range s.GetMounts() {
		if m.Type == "volume" {
			return m
		}
	}
	return nil
}
