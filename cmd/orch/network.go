package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Look at networks, and find out why something isn't reached"}
	c.AddCommand(networkLs(), networkInspect(), networkCheck())
	return c
}

func fetchNetworks(ctx context.Context, client clusterClient, _ []string) ([]*api.NetworkStatus, error) {
	r, err := client.ListNetworks(ctx, connect.NewRequest(&api.ListNetworksRequest{}))
	if err != nil {
		return nil, err
	}
	stale(r.Header())
	return r.Msg.Networks, nil
}

func networkLs() *cobra.Command {
	return listing(&cobra.Command{Use: "ls", Short: "List networks", Args: exactly()}, fetchNetworks,
		func(all []*api.NetworkStatus) *table {
			t := &table{header: []string{"NETWORK", "SUBNET", "ENCRYPTED", "INTERNAL", "SERVICES", "TASKS", "AGE", "VNI", "MTU"}, wide: 7}
			for _, n := range all {
				t.add(n.Network.Id, n.Network.Subnet, yes(n.Network.Spec.GetEncrypted()), yes(n.Network.Spec.GetInternal()),
					fmt.Sprint(len(n.Services)), fmt.Sprint(len(n.Tasks)), ago(n.Network.CreatedAt), fmt.Sprint(n.Network.Vni), fmt.Sprint(n.Network.Mtu))
			}
			return t
		})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func networkInspect() *cobra.Command {
	return listing(&cobra.Command{Use: "inspect STACK/NETWORK", Short: "List what is on a network: services with their virtual addresses, and tasks", Args: exactly("a network, STACK/NETWORK")},
		func(ctx context.Context, client clusterClient, args []string) ([]*api.NetworkStatus, error) {
			all, err := fetchNetworks(ctx, client, nil)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(all, func(n *api.NetworkStatus) bool { return n.Network.Id == args[0] })
			if i < 0 {
				names := make([]string, len(all))
				for i, n := range all {
					names[i] = n.Network.Id
				}
				return nil, &exitError{2, fmt.Sprintf("orch: there is no network %q; there are: %s", args[0], strings.Join(names, ", "))}
			}
			return all[i : i+1], nil
		},
		func(all []*api.NetworkStatus) *table {
			t := &table{header: []string{"NAME", "ADDRESS", "NODE", "STATE"}}
			for _, s := range all[0].Services {
				t.add(s.Id, s.Address, "everywhere", "virtual")
			}
			for _, x := range all[0].Tasks {
				t.add(x.Id, x.Address, x.Node, x.State)
			}
			return t
		})
}

func networkCheck() *cobra.Command {
	var from, output string
	cmd := &cobra.Command{Use: "check [--from NODE]", Short: "Have nodes find out whether they reach each other", Args: exactly(),
		Long: `Has every node, or one, look at what leads to the others: clock, published
ports, the relay to other nodes' tasks, the mesh (small and full packets), networks
and names. Exit 0 if all is well, else 1, with what is wrong and what can be done.`}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
		r, err := client.CheckNetworks(cmd.Context(), connect.NewRequest(&api.CheckNetworksRequest{From: from}))
		if err != nil {
			return err
		}
		bad := 0
		t := &table{header: []string{"NODE", "TO", "WHAT", "", "FOUND"}}
		for _, f := range r.Msg.Findings {
			mark := "ok"
			if !f.Ok {
				mark, bad = "WRONG", bad+1
			}
			t.add(f.Node, f.Peer, f.What, mark, f.Text)
		}
		if output == "json" {
			err = printMessages(cmd, r.Msg.Findings)
		} else {
			err = t.print(cmd, output)
		}
		if err == nil && bad > 0 {
			err = &exitError{1, fmt.Sprintf("orch: %d of %d findings are wrong", bad, len(r.Msg.Findings))}
		}
		return err
	})
	cmd.Flags().StringVar(&from, "from", "", "only this node looks")
	outputFlag(cmd, &output)
	return cmd
}
