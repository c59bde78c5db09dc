// Command dashboard shows what Telegraf wrote into an InfluxDB 1.x: cpu over
// time, memory and load, a page that follows by itself. It is the "orch
// dashboard" of the demo, a stand-in where Chronograf's image is not to be
// had; it is static, keeps nothing and loads nothing from elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is of the dashboard, which has a life of its own beside orch.
const version = "1.0"

func main() {
	listen := flag.String("listen", env("LISTEN", ":8888"), "address to serve on (env LISTEN)")
	influx := flag.String("influxdb", env("INFLUXDB_URL", "http://127.0.0.1:8086"), "InfluxDB 1.x to ask (env INFLUXDB_URL)")
	database := flag.String("database", env("INFLUXDB_DB", "telegraf"), "database that Telegraf writes to (env INFLUXDB_DB)")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println("orch dashboard", version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	source := &Influx{URL: *influx, Database: *database}
	if err := serve(ctx, *listen, source); err != nil {
		slog.Error("cannot serve the dashboard", "listen", *listen, "err", err)
		os.Exit(1)
	}
}

// serve answers on listen until ctx ends; then it lets requests finish.
func serve(ctx context.Context, listen string, source *Influx) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler(source), ReadHeaderTimeout: 5 * time.Second}
	slog.Info("the dashboard serves", "listen", l.Addr().String(), "influxdb", source.URL)
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
