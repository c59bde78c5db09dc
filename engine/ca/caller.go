package ca

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
)

type identityKey struct{}

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

// PassOn says in a request to another engine for whom it is made.
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
		id := w.Identify(r.TLS)
		if passed := r.Header.Get(callerHeader); passed != "" && id.Role == Engine && id.Verified {
			id = Identity{}
			if b, err := base64.StdEncoding.DecodeString(passed); err == nil {
				_ = json.Unmarshal(b, &id) // what can't be read is nobody
			}
		}
		r.Header.Del(callerHeader)
		next.ServeHTTP(out, r.WithContext(With(r.Context(), id)))
	})
}

// Forwarded says that an engine passed the request on: it must not be
// passed on again.
func Forwarded(r *http.Request) bool { return r.Header.Get(forwardedHeader) != "" }

// forwardedHeader stands in requests that were passed on.
const forwardedHeader = "Orch-Forwarded"

// MarkForwarded marks a request that is passed on.
func MarkForwarded(h http.Header) { h.Set(forwardedHeader, "1") }
