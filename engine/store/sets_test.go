package store_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// A command is written in the set that it belongs to, not in the newest that
// this binary knows; one that not every engine knows yet is not written.
func TestCommandSets(t *testing.T) {
	s := lead(t, config(""))
	defer s.Close()
	c := &api.Command{Time: timestamppb.New(epoch), Version: 99, Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "c", Version: 1}}}
	if _, err := s.Propose(t.Context(), c); err != nil || c.Version != 1 {
		t.Errorf("set %d, %v", c.Version, err)
	}
	before := s.Applied()
	unknown := &api.Command{Time: timestamppb.New(epoch)} // of a set after the newest
	if _, err := s.Propose(t.Context(), unknown); err == nil || !strings.Contains(err.Error(), "needs every engine of the cluster upgraded") || unknown.Version != state.CommandSet+1 {
		t.Errorf("set %d, %v", unknown.Version, err)
	}
	if now := s.Applied(); now != before {
		t.Errorf("entry %d was written after %d", now, before)
	}
}
