package playbooks

import (
	"errors"
	"slices"
	"sync"

	"go.starlark.net/starlark"

	"orch/engine/api"
	"orch/engine/rollout"
)

// maxModules is how many evaluated modules are kept: each may be as large as
// a playbook's meaning.
const maxModules = 4

// moduleCache keeps evaluated modules, the last used first. What a module
// means depends on nothing but its key, and all in it is frozen, so that many
// threads may call its functions.
type moduleCache struct {
	mu   sync.Mutex
	kept []*strategyModule
}

type moduleKey struct{ bundle, id, params string }

type strategyModule struct {
	key moduleKey

	mu      sync.Mutex // held while it is evaluated
	e       *evaluation
	globals starlark.StringDict
}

// module evaluates a module on the thread, under its limits, or finds it.
func (c *moduleCache) module(thread *starlark.Thread, q rollout.Question, id string, cover *Coverage) (*strategyModule, error) {
	key := moduleKey{id: id, params: q.ParamsJson}
	if q.Bundle != nil {
		key.bundle = hashOf(q.Bundle)
	}
	m := c.entry(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.globals != nil {
		return m, nil
	}
	if err := m.evaluate(thread, q, cover); err != nil {
		c.forget(m) // it may have been for want of time
		return nil, err
	}
	return m, nil
}

func (c *moduleCache) entry(key moduleKey) *strategyModule {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.kept, func(m *strategyModule) bool { return m.key == key })
	m := &strategyModule{key: key}
	if i >= 0 {
		m = c.kept[i]
		c.kept = slices.Delete(c.kept, i, i+1)
	}
	c.kept = slices.Insert(c.kept, 0, m)
	c.kept = c.kept[:min(len(c.kept), maxModules)]
	return m
}

func (c *moduleCache) forget(m *strategyModule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(k *strategyModule) bool { return k == m })
}

func (m *strategyModule) evaluate(thread *starlark.Thread, q rollout.Question, cover *Coverage) error {
	bundle := q.Bundle
	if bundle == nil {
		bundle = &api.Bundle{}
	}
	e, err := newEvaluation(Options{Bundle: bundle, ParamsJSON: q.ParamsJson, cover: cover})
	if err != nil {
		return err
	}
	e.src = withLibrary{e.src}
	for _, v := range e.run.Params {
		v.Freeze() // threads share them
	}
	e.run.Attach(thread)
	thread.Load = e.load
	globals, err := e.module(thread, m.key.id)
	found := e.found
	if err != nil && !errors.Is(err, errReported) {
		found = append(found, diagnosticsOf(err)...)
	}
	l := &locator{text: e.read}
	for _, p := range e.run.Problems {
		found = append(found, l.diagnostic(p, "error"))
	}
	if len(found) > 0 {
		return newError(e.read, found)
	}
	if err != nil {
		return err
	}
	m.e, m.globals = e, globals
	return nil
}

// withLibrary answers for a bundle without the library's modules: it was made
// before they were recorded.
type withLibrary struct{ source }

func (s withLibrary) read(id string) ([]byte, error) {
	b, err := s.source.read(id)
	if pkg, file := splitID(id); err != nil && pkg == "orch" {
		return readLibrary(file)
	}
	return b, err
}

// bundled is file() and template() in a strategy: what the bundle holds.
// It changes nothing, as many threads may call it.
func (e *evaluation) bundled(from, path string) ([]byte, error) {
	id, err := refer(from, path)
	if err != nil {
		return nil, err
	}
	return e.src.read(id)
}
