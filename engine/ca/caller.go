package ca

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"sync"
)

type identityKey struct{}

type connectionKey struct{}

// connection remembers who is at the other end of one.
type connection struct {
	once sync.Once
	id   Identity
}

// ConnContext is for http.Server: who is at the other end of a connection is
// found out once, when it is made. A certificate that ends later, or whose CA
// is replaced, doesn't end the connection; who may do what goes by the record.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

func (w *Wallet) identify(r *http.Request) Identity {
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		return w.Identify(r.TLS)
	}
	c.once.Do(func() { c.id = w.Identify(r.TLS) })
	return c.id
}

// With lets handlers ask From who calls.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// From is who calls; the zero Identity if nobody is known.
func From(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

// callerHeader carries who called the engine that passes a request on.
const callerHeader = "Orch-Caller"

// PassOn says in a request to another engine for whom it is made. Such a
// request must not be passed on again: Forwarded tells.
func PassOn(h http.Header, id Identity) {
	b, err := json.Marshal(id)
	if err != nil {
		panic(err) // it holds strings and a time
	}
	h.Set(callerHeader, base64.StdEncoding.EncodeToString(b))
}

// Middleware tells handlers who calls. An engine may say that it passes a
// request on; nobody else is believed that.
func (w *Wallet) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		id := w.identify(r)
		if passed := r.Header.Get(callerHeader); passed != "" && id.Role == Engine && id.Verified {
			id = Identity{}
			if b, err := base64.StdEncoding.DecodeString(passed); err == nil {
				_ = json.Unmarshal(b, &id) // what can't be read is nobody
			}
		}
		next.ServeHTTP(out, r.WithContext(With(r.Context(), id)))
	})
}

// Forwarded says that an engine passed the request on.
func Forwarded(r *http.Request) bool { return r.Header.Get(callerHeader) != "" }
