package mesh

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

// arg is the hidden first argument of the process; the second is the device's
// name. With stay as the third it is the one that stays.
const (
	arg      = "orch-mesh"
	stay     = "stay"
	reportFD = 3
	up       = "up"
)

// IsMesh is whether a program called with args (os.Args) is to be a device.
func IsMesh(args []string) bool { return len(args) > 2 && args[1] == arg }

// Main is the whole life of a device; it does not return. A program that holds
// a Mesh must call it first in main when IsMesh says so.
func Main() {
	report := os.NewFile(reportFD, "report")
	if len(os.Args) < 4 {
		cmd := exec.Command("/proc/self/exe", arg, os.Args[2], stay)
		cmd.Args[0] = os.Args[0]
		cmd.Dir, cmd.ExtraFiles = "/", []*os.File{report}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Fprint(report, err)
			os.Exit(1)
		}
		os.Exit(0) // what stays is init's
	}
	syscall.CloseOnExec(reportFD)
	debug.SetGCPercent(50)
	if err := serve(os.Args[2], report); err != nil {
		fmt.Fprint(report, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve is the device until it is taken away or the process is told to stop.
func serve(name string, report *os.File) error {
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
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	fmt.Fprint(report, up)
	report.Close()
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
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", arg, name)
	cmd.Args[0] = os.Args[0]
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(10 * time.Second))
	text := make([]byte, 1000)
	n, err := io.ReadAtLeast(r, text, 1)
	_ = cmd.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("the process of device %s did not start: %w", name, err)
	case string(text[:n]) != up:
		return fmt.Errorf("cannot make device %s: %s", name, text[:n])
	}
	return nil
}

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
