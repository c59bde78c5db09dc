// Package docker runs tasks as containers, over the Docker API.
package docker

import _ "github.com/docker/docker/client" // for go.mod, until the runtime is here
