package main

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
)

// notTwice are the methods that do something else the second time.
var notTwice = map[string]bool{
	apiconnect.ClusterServiceRestartServiceProcedure: true,
	apiconnect.ClusterServiceRollbackStackProcedure:  true,
	apiconnect.ClusterServiceRotateCAProcedure:       true,
	apiconnect.ClusterServiceAutolockProcedure:       true,
}

const (
	tries      = 4
	retryAfter = 250 * time.Millisecond
)

// retrying asks again when an engine was lost in the midst of an answer, or
// says that nothing was done.
func retrying(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		for try := 1; ; try++ {
			out, err := next(ctx, r)
			if err == nil || try == tries || !again(err, r.Spec().Procedure) {
				return out, err
			}
			pause := time.NewTimer(retryAfter)
			select {
			case <-ctx.Done():
				pause.Stop()
				return nil, err
			case <-pause.C:
			}
		}
	}
}

func again(err error, procedure string) bool {
	var c *connect.Error
	if !errors.As(err, &c) || c.Code() != connect.CodeUnavailable {
		return false
	}
	if connect.IsWireError(err) {
		return c.Meta().Get(api.ReasonHeader) == api.ReasonAgain
	}
	return !notTwice[procedure]
}

// clientOptions are those of every client of the cluster.
func clientOptions() connect.ClientOption {
	return connect.WithClientOptions(connect.WithGRPC(), connect.WithInterceptors(connect.UnaryInterceptorFunc(retrying)))
}
