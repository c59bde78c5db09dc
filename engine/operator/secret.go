package operator

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// maxSecret bounds a secret's value, in bytes, as Docker does.
const maxSecret = 500 << 10

func (s *Server) PutSecret(ctx context.Context, r *connect.Request[api.PutSecretRequest]) (*connect.Response[api.PutSecretResponse], error) {
	m := r.Msg
	switch {
	case m.Name == "" || len(m.Value) == 0:
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a secret needs a name and a value"))
	case len(m.Value) > maxSecret:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("secret %q has %d bytes; at most %d are allowed", m.Name, len(m.Value), maxSecret))
	case s.Store.View().CurrentSecret("", m.Name) != nil && !m.Replace:
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("secret %q exists already; --replace gives it a new value", m.Name))
	}
	value, err := sealed(s.Key, "", m.Name, m.Value)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_PutSecret{PutSecret: value}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.PutSecretResponse{Digest: value.Digest}), nil
}

func (s *Server) ListSecrets(ctx context.Context, _ *connect.Request[api.ListSecretsRequest]) (*connect.Response[api.ListSecretsResponse], error) {
	out := &api.ListSecretsResponse{}
	for _, sec := range s.Store.View().Secrets() {
		if sec.Current {
			sec = proto.CloneOf(sec)
			sec.Sealed = nil
			out.Secrets = append(out.Secrets, sec)
		}
	}
	return connect.NewResponse(out), nil
}

func (s *Server) RemoveSecret(ctx context.Context, r *connect.Request[api.RemoveSecretRequest]) (*connect.Response[api.RemoveSecretResponse], error) {
	id := state.SecretID("", r.Msg.Name)
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_RemoveSecret{RemoveSecret: &api.RemoveSecret{Id: id}}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.RemoveSecretResponse{}), nil
}
