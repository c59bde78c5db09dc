package backup_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/backup"
	"orch/engine/seal"
	"orch/engine/state"
)

func TestRoundTrip(t *testing.T) {
	s := state.New()
	for i, c := range []*api.Command{
		{Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "c1", Name: "prod"}}},
		{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: "n1", Name: "n1", Role: "engine", Availability: "active", Status: "up"}}},
	} {
		c.Time, c.Version = timestamppb.Now(), state.CommandSet
		if r := s.Apply(uint64(i+1), c); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	key := seal.NewKey()
	var b bytes.Buffer
	if err := backup.Write(&b, s.View(), key, "v1"); err != nil {
		t.Fatal(err)
	}
	h, got, err := backup.Read(bytes.NewReader(b.Bytes()))
	if err != nil || h.ClusterID != "c1" || h.Cluster != "prod" || h.Index != 2 || !bytes.Equal(h.DataKey, key[:]) || got.View().Node("n1") == nil {
		t.Fatalf("%+v, %v", h, err)
	}
	for name, bad := range map[string]string{
		"nothing": "", "something else": "hello\nworld", "cut": b.String()[:b.Len()-3],
		"a newer one": strings.Replace(b.String(), `"orch_backup":1`, `"orch_backup":2`, 1),
		"changed":     b.String()[:b.Len()-10] + "0123456789",
	} {
		if _, _, err := backup.Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
