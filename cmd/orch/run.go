package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
	"orch/playbooks"
)

// inputs are the flags that give a playbook its parameters.
type inputs struct {
	set    []string
	params string
}

func (in *inputs) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&in.set, "set", nil, "give a parameter a value, `name=value`; may be repeated")
	cmd.Flags().StringVar(&in.params, "params", "", "read parameters from a JSON `file`; --set wins")
}

func (in *inputs) values() (map[string]any, error) {
	values := map[string]any{}
	if in.params != "" {
		b, err := os.ReadFile(in.params)
		if err != nil {
			return nil, &exitError{2, "orch: cannot read the parameters: " + err.Error()}
		}
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		if err := d.Decode(&values); err != nil {
			return nil, &exitError{2, fmt.Sprintf("orch: %s is no JSON object of parameters: %v", in.params, err)}
		}
		for k, v := range values {
			values[k] = number(v)
		}
	}
	for _, s := range in.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, &exitError{2, fmt.Sprintf("orch: --set %q: want name=value", s)}
		}
		values[name] = value
	}
	return values, nil
}

// number turns json.Number into the int or float64 that playbooks take.
func number(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return int(i)
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = number(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = number(v[k])
		}
	}
	return v
}

// evaluate reads a playbook; what is wrong with it ends the program with 2.
func (in *inputs) evaluate(cmd *cobra.Command, path string) (*playbooks.Result, error) {
	values, err := in.values()
	if err != nil {
		return nil, err
	}
	cache, _ := os.UserCacheDir() // without one, nothing is cached
	if cache != "" {
		cache += "/orch"
	}
	r, err := playbooks.Eval(cmd.Context(), playbooks.Options{
		Path: path, Params: values, CacheDir: cache,
		Print: func(pos, text string) { fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", pos, text) },
	})
	if r != nil && err == nil { // beside mistakes they mislead
		for _, w := range r.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), w.String())
		}
	}
	var mistakes *playbooks.Error
	switch {
	case errors.As(err, &mistakes):
		if f := cmd.Flag("output"); f != nil && f.Value.String() == "json" {
			b, _ := json.Marshal(mistakes)
			fmt.Fprintln(cmd.OutOrStdout(), string(b))
			return nil, &exitError{code: 2}
		}
		return nil, &exitError{2, mistakes.Error()}
	case err != nil:
		return nil, &exitError{2, "orch: " + err.Error()}
	}
	return r, nil
}

type runOptions struct {
	inputs
	detach  bool
	timeout time.Duration
	output  string
	plan    string // file
}

func runCommand() *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run [PLAYBOOK]",
		Short: "Deploy a playbook and wait until it has converged",
		Long: `Deploy a playbook and wait until what runs is what it declares.

Where no cluster runs on this machine, one is started in this process: it keeps
the stack running until Ctrl-C, then stops all tasks and leaves no container,
network or process behind (volumes stay). With -d it stays in the background
until ` + "`orch down`" + `. Where one runs, the playbook becomes the stack's next
release: only what changed is touched.

With --plan, exactly what ` + "`orch plan --out FILE`" + ` showed is done, or nothing: if
another release came since, or the ops of its rollouts would be others, it is
refused. A release is one thing: if one service fails, what the release changed
is taken back (see stack(on_failure) in ` + "`orch doc stack`" + `).

A line a service shows its state, how many of its tasks are ready, and what it
waits for. Exit code 0: converged. 1: it did not, with the reasons. 2: the
playbook is wrong; nothing was changed.`,
		Example: "  orch run playbooks/tick.star\n  orch run -d web.star --set tag=v2 --timeout 2m\n  orch plan web.star --out web.plan; orch run --plan web.plan",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.plan != "" {
				return upTo(1)(cmd, args)
			}
			return exactly("a playbook")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, strings.Join(args, "")) },
	}
	o.flags(cmd)
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "leave the cluster running in the background")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up waiting after this `time`; 0: never")
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "text, or json: a stream of events, one a line")
	cmd.Flags().StringVar(&o.plan, "plan", "", "do exactly what is planned in this `file`")
	return cmd
}

func (o *runOptions) run(cmd *cobra.Command, path string) error {
	if o.output != "text" && o.output != "json" {
		return &exitError{2, fmt.Sprintf("orch: -o %s: want text or json", o.output)}
	}
	var result *playbooks.Result
	if o.plan != "" && path == "" && (len(o.set) > 0 || o.params != "") {
		return &exitError{2, "orch: a plan holds its parameters: leave --set and --params out, or plan again with them"}
	}
	if path != "" {
		var err error
		if result, err = o.evaluate(cmd, path); err != nil {
			return err
		}
	}
	ctx := cmd.Context()
	var own *local
	client, err := connectCluster(ctx)
	if errors.Is(err, errNoCluster) && o.plan == "" {
		if o.detach {
			client, err = detached(ctx)
		} else if own, err = startLocal(ctx, localOptions{alone: true}); err == nil {
			defer own.Close()
			client = own.client
		}
	}
	if err != nil {
		return err
	}
	err = o.deploy(ctx, cmd, client, result)
	if own == nil {
		return err
	}
	if err == nil {
		err = own.hold(ctx, cmd, o.output)
	}
	if stopErr := own.stopAll(cmd, client); err == nil || errors.Is(err, context.Canceled) {
		err = stopErr
	}
	return err
}

// detached starts a cluster of one in the background.
func detached(ctx context.Context) (clusterClient, error) {
	dir, err := home()
	if err != nil {
		return nil, err
	}
	if _, err := startDaemon(ctx, dir, "engine"); err != nil {
		return nil, err
	}
	client, _ := socketClients(dir)
	return client, nil
}

// deploy applies the bundle and watches until it has converged.
func (o *runOptions) deploy(ctx context.Context, cmd *cobra.Command, client clusterClient, r *playbooks.Result) error {
	var ask *api.ApplyRequest
	if o.plan != "" {
		var err error
		if ask, err = o.planned(ctx, client, r); err != nil {
			return err
		}
	} else {
		ask = &api.ApplyRequest{Bundle: r.Bundle, ParamsJson: r.ParamsJSON}
	}
	applied, err := client.Apply(ctx, connect.NewRequest(ask))
	if err != nil {
		return applyError(err)
	}
	show := newProgress(cmd.OutOrStdout(), o.output)
	show.release(applied.Msg)
	return watch(ctx, client, applied.Msg.Stack, o.timeout, show)
}

// applyError gives what the engine found wrong with a playbook the exit code
// that the same has here.
func applyError(err error) error {
	if connect.CodeOf(err) == connect.CodeInvalidArgument {
		return &exitError{2, explain(err)}
	}
	return err
}

// hold keeps the cluster until an interrupt.
func (l *local) hold(ctx context.Context, cmd *cobra.Command, output string) error {
	if output == "text" {
		fmt.Fprintln(cmd.OutOrStdout(), "Running until Ctrl-C, which stops all tasks. From another terminal: orch ps, orch logs -f STACK, orch run …")
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-l.failed:
		return err
	}
}

// stopWithin bounds how long the end of a foreground cluster may take.
const stopWithin = 2 * time.Minute

// stopAll stops every stack's tasks and waits until nothing is left of them.
func (l *local) stopAll(cmd *cobra.Command, client clusterClient) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), stopWithin)
	defer cancel()
	fmt.Fprintln(cmd.ErrOrStderr(), "Stopping all tasks …")
	if err := stopStacks(ctx, client); err != nil {
		return err
	}
	l.bareNow(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("tasks still run after %s; `orch down` tries again", stopWithin)
	}
	return nil
}
