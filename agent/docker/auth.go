package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
)

// hubKey is what Docker's config file calls the Hub.
const hubKey = "https://index.docker.io/v1/"

// dockerConfig is the part of ~/.docker/config.json that holds credentials.
type dockerConfig struct {
	Auths       map[string]registry.AuthConfig `json:"auths"`
	CredHelpers map[string]string              `json:"credHelpers"`
	CredsStore  string                         `json:"credsStore"`
}

// registryAuth is the header for the registry of ref, from Docker's own
// config file ($DOCKER_CONFIG, else ~/.docker) or the credential helper that
// it names; empty where there is none. It is read anew for each pull, so
// that tokens which a helper renews are never stale.
func registryAuth(ctx context.Context, ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("bad image name %q: %w", ref, err)
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil // no home, no credentials
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var cfg dockerConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		return "", fmt.Errorf("cannot read registry credentials from %s: %w", path, err)
	}
	key := reference.Domain(named)
	if key == "docker.io" {
		key = hubKey
	}
	auth, err := cfg.lookup(ctx, key)
	if err != nil || auth == nil {
		return "", err
	}
	return registry.EncodeAuthConfig(*auth)
}

func (c dockerConfig) lookup(ctx context.Context, key string) (*registry.AuthConfig, error) {
	if helper := c.CredHelpers[key]; helper != "" {
		return askHelper(ctx, helper, key)
	}
	if c.CredsStore != "" {
		return askHelper(ctx, c.CredsStore, key)
	}
	for server, auth := range c.Auths {
		bare := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
		if server != key && strings.SplitN(bare, "/", 2)[0] != key {
			continue
		}
		if auth.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(auth.Auth)
			if err != nil {
				return nil, fmt.Errorf("bad credentials for registry %q in Docker's config file: %w", server, err)
			}
			auth.Username, auth.Password, _ = strings.Cut(strings.TrimRight(string(pair), "\x00"), ":")
			auth.Auth = ""
		}
		auth.ServerAddress = key
		return &auth, nil
	}
	return nil, nil
}

// askHelper runs docker-credential-NAME, whose protocol is that of
// github.com/docker/docker-credential-helpers.
func askHelper(ctx context.Context, helper, key string) (*registry.AuthConfig, error) {
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(key)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(out.String() + errs.String())
		if strings.Contains(said, "credentials not found") {
			return nil, nil
		}
		return nil, fmt.Errorf("docker-credential-%s: %w: %s", helper, err, said)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		return nil, fmt.Errorf("docker-credential-%s: bad answer: %w", helper, err)
	}
	if got.Username == "<token>" {
		return &registry.AuthConfig{ServerAddress: key, IdentityToken: got.Secret}, nil
	}
	return &registry.AuthConfig{ServerAddress: key, Username: got.Username, Password: got.Secret}, nil
}
