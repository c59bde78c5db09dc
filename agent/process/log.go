package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"orch/agent/task"
)

const (
	logSize  = 10 << 20 // bytes; then it is rotated
	logFiles = 3
	maxPiece = 16 << 10 // longer lines are kept in pieces
)

func logName(dir string, age int) string {
	if age == 0 {
		return filepath.Join(dir, "log")
	}
	return filepath.Join(dir, fmt.Sprintf("log.%d", age))
}

// logWriter keeps both streams of a task in the format of the CRI: a line is
// "TIME STREAM F|P TEXT", where P says that the next goes on with it.
type logWriter struct {
	mu   sync.Mutex
	dir  string
	f    *os.File
	size int64
}

func newLog(dir string) (*logWriter, error) {
	f, err := os.OpenFile(logName(dir, 0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &logWriter{dir: dir, f: f, size: info.Size()}, nil
}

// copy writes what comes from in until its end. A full disk costs lines,
// never the task.
func (l *logWriter) copy(stream string, in io.Reader) {
	var out []byte
	for r := bufio.NewReaderSize(in, maxPiece); ; {
		text, err := r.ReadSlice('\n')
		if len(text) > 0 {
			mark := " P "
			piece, ended := bytes.CutSuffix(text, []byte("\n"))
			if ended || errors.Is(err, io.EOF) {
				mark = " F "
			}
			out = time.Now().UTC().AppendFormat(out, time.RFC3339Nano)
			out = append(append(append(append(out, ' '), stream...), mark...), piece...)
			out = append(out, '\n')
		}
		if len(out) > 0 && (r.Buffered() == 0 || len(out) > maxPiece) {
			l.write(out)
			out = out[:0]
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (l *logWriter) write(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(text)) > logSize {
		for age := logFiles - 1; age > 0; age-- {
			_ = os.Rename(logName(l.dir, age-1), logName(l.dir, age))
		}
		if f, err := os.OpenFile(logName(l.dir, 0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			l.f.Close()
			l.f, l.size = f, 0
		}
	}
	n, _ := l.f.Write(text)
	l.size += int64(n)
}

// readLog passes a task's lines to emit; see worker.Runtime's Logs.
func readLog(ctx context.Context, dir string, opt task.LogOptions, running func() bool, emit func(task.Line) error) error {
	files, err := openLogs(dir)
	if err != nil || len(files) == 0 {
		return err
	}
	current := files[len(files)-1]
	defer func() { current.Close() }()
	sink := tail{keep: opt.Tail, since: opt.Since, emit: emit}
	lines := parser{line: sink.add}
	for _, f := range files {
		if err == nil {
			err = lines.drain(f)
		}
		if f != current {
			f.Close()
		}
	}
	if err == nil {
		err = sink.flush()
	}
	for err == nil && opt.Follow {
		ran := running()
		if err = lines.drain(current); err != nil {
			break
		}
		if next, err2 := os.Open(logName(dir, 0)); err2 == nil {
			if same(current, next) {
				next.Close()
			} else {
				err = lines.drain(current) // written before it was rotated
				current.Close()
				current = next
				continue
			}
		}
		if !ran {
			break
		}
		again := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
	return err
}

// openLogs opens what there is, oldest first. It begins with the newest: a
// rotation meanwhile shows a file twice, and never hides one.
func openLogs(dir string) ([]*os.File, error) {
	var all []*os.File
	for age := range logFiles {
		f, err := os.Open(logName(dir, age))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(all) > 0 && same(all[0], f) {
			f.Close()
			continue
		}
		all = append([]*os.File{f}, all...)
	}
	return all, nil
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// parser makes lines of what logWriter wrote.
type parser struct {
	line func(task.Line) error
	rest []byte               // of an entry that isn't there in full yet
	open map[string]task.Line // begun by pieces
}

func (p *parser) drain(f io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		p.rest = append(p.rest, buf[:n]...)
		for {
			entry, rest, ended := bytes.Cut(p.rest, []byte("\n"))
			if !ended {
				break
			}
			p.rest = rest
			if err := p.entry(entry); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) entry(entry []byte) error {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	if len(fields) < 4 {
		return nil // torn by a crash
	}
	stream := string(fields[1])
	line, begun := p.open[stream]
	if !begun {
		line.Stream = stream
		line.Time, _ = time.Parse(time.RFC3339Nano, string(fields[0]))
	}
	line.Text = append(line.Text, fields[3]...)
	if fields[2][0] == 'P' {
		if p.open == nil {
			p.open = map[string]task.Line{}
		}
		p.open[stream] = line
		return nil
	}
	delete(p.open, stream)
	return p.line(line)
}

// tail holds lines back until flush, and then the newest keep of them.
type tail struct {
	keep    int // negative: all
	since   time.Time
	emit    func(task.Line) error
	held    []task.Line
	flushed bool
}

func (t *tail) add(l task.Line) error {
	if l.Time.Before(t.since) {
		return nil
	}
	if t.flushed || t.keep < 0 {
		return t.emit(l)
	}
	t.held = append(t.held, l)
	if len(t.held) > 2*t.keep+1024 {
		t.held = append([]task.Line(nil), t.held[len(t.held)-t.keep:]...)
	}
	return nil
}

func (t *tail) flush() error {
	t.flushed = true
	if t.keep < 0 {
		return nil
	}
	for _, l := range t.held[max(0, len(t.held)-t.keep):] {
		if err := t.emit(l); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}
