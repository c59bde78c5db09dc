package playtest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"orch/playbooks"
)

// tester is t under way.
type tester struct {
	ctx    context.Context
	module *playbooks.Module
	o      Options
	ask    *playbooks.Strategies
}

// methods are all that t has. Filled in init, as what they do refers to it.
var methods []*method

func init() {
	compared := []param{{name: "got", doc: "What it is.", position: true}, {name: "want", doc: "What it should be.", position: true}}
	methods = []*method{
		{name: "t.eq", params: compared, returns: "None", doc: "Fails unless both are equal.", example: `t.eq(plan.service("web").replicas, 3)`, do: (*tester).eq},
		{name: "t.ne", params: []param{{name: "a", doc: "One.", position: true}, {name: "b", doc: "The other.", position: true}}, returns: "None",
			doc: "Fails if both are equal.", example: `t.ne(web.image, worker.image)`, do: (*tester).ne},
		{name: "t.true", params: []param{{name: "cond", doc: "What should be true.", position: true}, {name: "message", text: `""`, doc: "What to say if it isn't.", position: true}}, returns: "None",
			doc: "Fails unless a value is true.", example: `t.true(web.read_only, "web must not write")`, do: (*tester).true},
		{name: "t.contains", params: []param{{name: "all", doc: "A list, dict or string.", position: true}, {name: "one", doc: "What should be in it.", position: true}}, returns: "None",
			doc: "Fails unless one is in all.", example: `t.contains(web.env, "PORT")`, do: (*tester).contains},
		{name: "t.fails", params: []param{{name: "fn", doc: "A function without arguments.", position: true}, {name: "regex", text: `""`, doc: "What the error must match.", position: true}}, returns: "str, the error",
			doc: "Fails unless a function fails.", example: `t.fails(lambda: t.plan("web.star", params = {"port": 0}), "port")`, do: (*tester).fails},
		planMethod, simulateMethod,
	}
}

func newT(t *tester) starlark.Value {
	members := starlark.StringDict{}
	for _, m := range methods {
		members[strings.TrimPrefix(m.name, "t.")] = m.builtin(t)
	}
	return &starlarkstruct.Module{Name: "t", Members: members}
}

func (*tester) eq(c *call) (starlark.Value, error) {
	same, err := starlark.Equal(c.value("got"), c.value("want"))
	if err == nil && !same {
		err = fmt.Errorf("t.eq: got %s, want %s", c.value("got"), c.value("want"))
	}
	return nil, err
}

func (*tester) ne(c *call) (starlark.Value, error) {
	same, err := starlark.Equal(c.value("a"), c.value("b"))
	if err == nil && same {
		err = fmt.Errorf("t.ne: both are %s", c.value("a"))
	}
	return nil, err
}

func (*tester) true(c *call) (starlark.Value, error) {
	message, err := c.text("message")
	if err != nil || bool(c.value("cond").Truth()) {
		return nil, err
	}
	if message == "" {
		message = fmt.Sprintf("got %s", c.value("cond"))
	}
	return nil, errors.New("t.true: " + message)
}

func (*tester) contains(c *call) (starlark.Value, error) {
	in, err := starlark.Binary(syntax.IN, c.value("one"), c.value("all"))
	if err == nil && !in.Truth() {
		err = fmt.Errorf("t.contains: %s is not in %s", c.value("one"), c.value("all"))
	}
	return nil, err
}

func (t *tester) fails(c *call) (starlark.Value, error) {
	fn, ok := c.value("fn").(starlark.Callable)
	if !ok {
		return nil, c.errorf("fn", "must be a function, not %s", show(c.value("fn")))
	}
	pattern, err := c.text("regex")
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, c.errorf("regex", "is none: %v", err)
	}
	message := t.module.Attempt(c.thread, fn)
	switch {
	case message == "":
		return nil, errors.New("t.fails: it didn't fail")
	case !re.MatchString(message):
		return nil, fmt.Errorf("t.fails: the error doesn't match %q: %s", pattern, message)
	}
	return starlark.String(message), nil
}
