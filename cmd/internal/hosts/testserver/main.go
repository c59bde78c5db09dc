// Command testserver is what images of tests have inside: an HTTP server on
// $PORT (8888 unless set) that says who it is.
//
//	/health  200, or 503 while $UNHEALTHY is set
//	/        hostname and $TAG, a line each
//
// It ends at once on SIGTERM; on that of $GRACE (such as 2s) later, if set.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("UNHEALTHY") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
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
	log.Fatal(http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "8888"), nil))
}
