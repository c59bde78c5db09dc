package api

import (
	"fmt"
	"regexp"
	"strconv"
)

// A url placeholder stands in env values and config contents for the address
// of a service, which only the node that runs the reader can tell.
// Its form is ${orch:url:SCHEME:SERVICE:PORT}; SCHEME "host" stands for the
// bare name or address without scheme and port.
var urlPlaceholder = regexp.MustCompile(`\$\{orch:url:([a-z][a-z0-9+.-]*):([a-z0-9][a-z0-9-]*):(\d{1,5})\}`)

// Url is a decoded placeholder.
type Url struct {
	Scheme, Service string
	Port            int
}

// Placeholder is the text that stands for u until an agent resolves it.
func (u Url) Placeholder() string {
	return fmt.Sprintf("${orch:url:%s:%s:%d}", u.Scheme, u.Service, u.Port)
}

// ResolveUrls replaces the placeholders in text by what resolve returns.
func ResolveUrls(text string, resolve func(Url) string) string {
	return urlPlaceholder.ReplaceAllStringFunc(text, func(found string) string {
		m := urlPlaceholder.FindStringSubmatch(found)
		port, _ := strconv.Atoi(m[3])
		return resolve(Url{Scheme: m[1], Service: m[2], Port: port})
	})
}

// Urls lists the placeholders in text, in order.
func Urls(text string) []Url {
	var all []Url
	ResolveUrls(text, func(u Url) string { all = append(all, u); return "" })
	return all
}
