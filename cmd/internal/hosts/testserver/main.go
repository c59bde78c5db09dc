// Command testserver is what images of tests have inside: an HTTP server on
// $PORT (8888 unless set) that says who it is.
//
//	/health  200, or 503 while $UNHEALTHY is set
//	/        hostname and $TAG, a line each
//	/ask?url=URL       what it gets from there, on a new connection
//	/env?name=NAME     a variable of its environment
//	/lookup?name=NAME  the addresses of a name, a line each
//	/take              how many bytes it was sent
//
// Datagrams to the same port are answered with hostname and $TAG, too.
//
// As "capture LINK PATTERN" it counts frames instead, see there.
//
// It ends at once on SIGTERM; on that of $GRACE (such as 2s) later, if set.
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "capture" {
		capture(os.Args[2], os.Args[3])
		return
	}
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("UNHEALTHY") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/ask", ask)
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, os.Getenv(r.FormValue("name"))) })
	http.HandleFunc("/lookup", lookup)
	http.HandleFunc("/take", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s\n%s\n", host, os.Getenv("TAG"))
	})
	grace, _ := time.ParseDuration(os.Getenv("GRACE"))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt) // as the first process of a container it has no default
	go func() {
		<-stop
		time.AfterFunc(grace, func() { os.Exit(0) })
	}()
	at := ":" + cmp.Or(os.Getenv("PORT"), "8888")
	go answerDatagrams(at)
	log.Fatal(http.ListenAndServe(at, nil))
}

func ask(w http.ResponseWriter, r *http.Request) {
	within := 10 * time.Second
	if d, err := time.ParseDuration(r.FormValue("within")); err == nil {
		within = d
	}
	// The dialer too has to give up: a transport lets it go on for later requests.
	dial := (&net.Dialer{Timeout: within}).DialContext
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: within}
	var a *http.Response
	var err error
	if n, _ := strconv.Atoi(r.FormValue("send")); n > 0 {
		a, err = client.Post(r.FormValue("url"), "text/plain", strings.NewReader(strings.Repeat("plain as day ", n/13+1)))
	} else {
		a, err = client.Get(r.FormValue("url"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer a.Body.Close()
	w.WriteHeader(a.StatusCode)
	_, _ = io.Copy(w, a.Body)
}

func lookup(w http.ResponseWriter, r *http.Request) {
	all, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	for _, a := range all {
		fmt.Fprintln(w, a)
	}
}

func answerDatagrams(at string) {
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		log.Fatal(err)
	}
	host, _ := os.Hostname()
	for b := make([]byte, 1500); ; {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			log.Fatal(err)
		}
		_, _ = c.WriteTo([]byte(host+"\n"+os.Getenv("TAG")+"\n"), from) // lost, as any datagram may be
	}
}
