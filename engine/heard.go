package engine

import (
	"sync"
	"time"

	"orch/engine/api"
	"orch/engine/member"
)

// heard is what engines said of themselves last, in the leader's memory.
type heard struct {
	mu    sync.Mutex
	all   map[string]*announcement
	since time.Time // this engine leads
}

type announcement struct {
	*api.AnnounceRequest
	at time.Time
}

func (h *heard) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.since = nil, time.Now()
}

// fresh says that an engine was heard of lately, or that there was no time
// for it since this engine leads.
func (h *heard) fresh(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.all[id]; a != nil {
		return time.Since(a.at) < member.Fresh
	}
	return time.Since(h.since) < member.Fresh
}

func (h *heard) of(id string) *announcement {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[id]
}

// young says that this engine leads for less time than all need to announce
// themselves.
func (h *heard) young() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.since) < 2*announceEvery
}

// members is what package member wants of it.
func (h *heard) members() map[string]member.Heard {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]member.Heard{}
	for id, a := range h.all {
		out[id] = member.Heard{At: a.at, Address: a.Address, Applied: a.Applied}
	}
	return out
}

// announced remembers what an engine said of itself.
func (e *Engine) announced(a *api.AnnounceRequest) {
	e.heard.mu.Lock()
	defer e.heard.mu.Unlock()
	if e.heard.all == nil {
		e.heard.all = map[string]*announcement{}
	}
	e.heard.all[a.NodeId] = &announcement{a, time.Now()}
}
