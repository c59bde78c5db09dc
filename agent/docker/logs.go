package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"

	"orch/agent/task"
)

// Logs follows only a task that runs, so it always ends with the task.
func (r *Runtime) Logs(ctx context.Context, id string, opt task.LogOptions, emit func(task.Line) error) error {
	name := containerName(r.cfg.Cluster, id)
	info, err := r.docker.ContainerInspect(ctx, name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the log of task %q: %w", id, r.plain(err))
	}
	o := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: opt.Follow && info.State.Running, Tail: "all"}
	if opt.Tail >= 0 {
		o.Tail = strconv.Itoa(opt.Tail)
	}
	if !opt.Since.IsZero() {
		o.Since = fmt.Sprintf("%d.%09d", opt.Since.Unix(), opt.Since.Nanosecond())
	}
	body, err := r.docker.ContainerLogs(ctx, name, o)
	if err != nil {
		return fmt.Errorf("cannot read the log of task %q: %w", id, r.plain(err))
	}
	defer body.Close()
	if info.Config.Tty {
		err = readRaw(body, emit)
	} else {
		err = readFrames(body, emit)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readFrames reads Docker's multiplexed stream: each message has a header of
// one byte for the stream, three zeros and a big-endian length. One message
// is one log entry, with its time in front; a long line comes as several
// entries of which only the last ends with a newline.
func readFrames(body io.Reader, emit func(task.Line) error) error {
	var header [8]byte
	open := map[byte]*task.Line{}
	in := bufio.NewReader(body)
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("the log broke off: %w", err)
		}
		entry := make([]byte, binary.BigEndian.Uint32(header[4:]))
		if _, err := io.ReadFull(in, entry); err != nil {
			return fmt.Errorf("the log broke off: %w", err)
		}
		at, text := cutTime(entry)
		text, ended := bytes.CutSuffix(text, []byte("\n"))
		line := open[header[0]]
		if line == nil {
			line = &task.Line{Stream: "stdout", Time: at}
			if header[0] == 2 {
				line.Stream = "stderr"
			}
			open[header[0]] = line
		}
		line.Text = append(line.Text, text...)
		if ended {
			delete(open, header[0])
			if err := emit(*line); err != nil {
				return err
			}
		}
	}
	for _, stream := range []byte{1, 2} {
		if line := open[stream]; line != nil {
			if err := emit(*line); err != nil {
				return err
			}
		}
	}
	return nil
}

// readRaw reads the log of a task with a terminal: one stream, no headers.
func readRaw(body io.Reader, emit func(task.Line) error) error {
	for in := bufio.NewReader(body); ; {
		text, err := in.ReadBytes('\n')
		if len(text) > 0 {
			at, rest := cutTime(text)
			if err := emit(task.Line{Stream: "stdout", Time: at, Text: bytes.TrimRight(rest, "\r\n")}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the log broke off: %w", err)
		}
	}
}

func cutTime(entry []byte) (time.Time, []byte) {
	stamp, rest, _ := bytes.Cut(entry, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}, entry
	}
	return at, rest
}
