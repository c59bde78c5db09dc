package operator

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/backup"
	"orch/engine/folder"
)

func now() *timestamppb.Timestamp { return timestamppb.Now() }

func (s *Server) RotateCA(ctx context.Context, _ *connect.Request[api.RotateCARequest]) (*connect.Response[api.RotateCAResponse], error) {
	if err := s.Desk.Rotate(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.RotateCAResponse{}), nil
}

func (s *Server) Autolock(ctx context.Context, r *connect.Request[api.AutolockRequest]) (*connect.Response[api.AutolockResponse], error) {
	old, err := s.Desk.UnlockKey(s.Store.View())
	if err != nil {
		return nil, err
	}
	key := folder.UnlockKey(old)
	switch {
	case r.Msg.Off:
		key = nil
	case len(old) == 0 || r.Msg.Rotate:
		key = folder.NewUnlockKey()
	}
	if string(key) != string(old) {
		if err := s.Desk.SetUnlockKey(ctx, key); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&api.AutolockResponse{Key: key.String()}), nil
}

func (s *Server) UnlockKey(context.Context, *connect.Request[api.UnlockKeyRequest]) (*connect.Response[api.UnlockKeyResponse], error) {
	key, err := s.Desk.UnlockKey(s.Store.View())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.UnlockKeyResponse{Key: folder.UnlockKey(key).String()}), nil
}

// chunk of a backup, in bytes.
const chunk = 256 << 10

func (s *Server) Backup(_ context.Context, _ *connect.Request[api.BackupRequest], out *connect.ServerStream[api.BackupChunk]) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(backup.Write(w, s.Store.View(), s.Key, s.Version)) }() // ends when r is closed
	defer r.Close()
	buf := make([]byte, chunk)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := out.Send(&api.BackupChunk{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}
