package task

import "unicode/utf8"

// MaxOutput is what is kept of a command's output, in bytes.
const MaxOutput = 16 << 10

// Tail keeps the last MaxOutput bytes that were written to it: how a command
// ended is said at its end. The zero value is ready. It never fails, and takes
// one writer at a time.
type Tail struct {
	kept []byte // up to twice MaxOutput, so that not each write moves them
	cut  bool   // there was more before
}

// Write swallows all of p.
func (t *Tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > MaxOutput {
		p, t.kept, t.cut = p[n-MaxOutput:], t.kept[:0], true
	}
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*MaxOutput {
		t.shorten()
	}
	return n, nil
}

func (t *Tail) shorten() {
	if over := len(t.kept) - MaxOutput; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
}

// String is what is kept. It never begins within a character.
func (t *Tail) String() string {
	t.shorten()
	text := t.kept
	for i := 0; t.cut && i < utf8.UTFMax-1 && len(text) > 0 && !utf8.RuneStart(text[0]); i++ {
		text = text[1:]
	}
	return string(text)
}
