package mesh

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"orch/agent/detached"
)

// arg is the hidden first argument of the process; the second is the device's
// name.
const arg = "orch-mesh"

// IsMesh is whether a program called with args (os.Args) is to be a device.
func IsMesh(args []string) bool { return detached.Is(args, arg) }

// Main is the whole life of a device; it does not return. A program that holds
// a Mesh must call it first in main when IsMesh says so.
func Main() {
	detached.Main(func(args []string, up func()) error {
		debug.SetGCPercent(50)
		return serve(args[0], up)
	})
}

// serve is the device until it is taken away or the process is told to stop.
func serve(name string, up func()) error {
	link, err := tun.CreateTUN(name, MTU)
	if err != nil {
		return fmt.Errorf("cannot make a tun device: %w", err)
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer dev.Close()
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return err
	}
	l, err := ipc.UAPIListen(name, file)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.WriteFile(pidFile(name), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	defer os.Remove(pidFile(name))
	failed := make(chan error, 1)
	go func() { // ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			go dev.IpcHandle(c)
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	up()
	select {
	case <-signals:
	case <-dev.Wait():
	case err = <-failed:
	}
	return err
}

func pidFile(name string) string { return filepath.Join("/var/run/wireguard", name+".pid") }

// spawn starts the process of a device and returns once it is there.
func spawn(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), spawnWithin)
	defer cancel()
	if err := detached.Start(ctx, arg, []string{name}); err != nil {
		return fmt.Errorf("cannot make device %s: %w", name, err)
	}
	return nil
}

// spawnWithin the process of a device is at work.
const spawnWithin = 10 * time.Second

// gone waits for the process of a device to end.
func gone(name string) error {
	text, err := os.ReadFile(pidFile(name))
	if err != nil {
		return nil // it has ended
	}
	pid, _ := strconv.Atoi(string(text))
	if pid <= 0 || !ours(pid, name) {
		return nil
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	_ = p.Signal(unix.SIGTERM)
	for deadline := time.Now().Add(5 * time.Second); ours(pid, name); {
		if time.Now().After(deadline) {
			return p.Kill()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}
