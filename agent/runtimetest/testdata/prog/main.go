// Command prog does what the conformance suite wants to see done. Each
// argument is one step.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, step := range os.Args[1:] {
		verb, arg, _ := strings.Cut(step, "=")
		switch verb {
		case "out":
			fmt.Println(arg)
		case "err":
			fmt.Fprintln(os.Stderr, arg)
		case "exit":
			n, _ := strconv.Atoi(arg)
			os.Exit(n)
		case "env":
			fmt.Println(os.Getenv(arg))
		case "cat":
			text, err := os.ReadFile(arg)
			must(err)
			fmt.Println(string(text))
		case "write":
			must(os.WriteFile(arg, []byte("kept"), 0o644))
		case "stat":
			var st syscall.Stat_t
			must(syscall.Stat(arg, &st))
			var fs syscall.Statfs_t
			must(syscall.Statfs(arg, &fs))
			fmt.Printf("mode=%o uid=%d fs=%x\n", st.Mode&0o777, st.Uid, fs.Type)
		case "who":
			dir, err := os.Getwd()
			must(err)
			fmt.Printf("uid=%d gid=%d dir=%s\n", os.Getuid(), os.Getgid(), dir)
		case "alloc":
			n, _ := strconv.Atoi(arg)
			block := make([]byte, n<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			fmt.Println("allocated", len(block))
		case "daemon": // a grandchild in a session of its own, whose parent ends
			cmd := exec.Command("/proc/self/exe", "fork="+arg)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			must(cmd.Run())
		case "fork":
			cmd := exec.Command("/proc/self/exe", "deaf", "write="+arg, "wait")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			must(cmd.Start())
		case "deaf":
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		case "count":
			n, _ := strconv.Atoi(arg)
			for i := range n {
				fmt.Println("line", i)
			}
		case "wait":
			if signal.Ignored(syscall.SIGTERM) {
				time.Sleep(time.Hour)
			}
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
			fmt.Println("ready")
			fmt.Println("bye", <-c)
			os.Exit(7)
		default:
			must(fmt.Errorf("unknown step %q", step))
		}
	}
}

func must(err error) {
	if err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
		os.Exit(99)
	}
}
