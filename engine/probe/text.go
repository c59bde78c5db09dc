package probe

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lengths in bytes.
const (
	maxReason = 500
	maxQuote  = 200 // of what others said, or of a query
)

// oneLine is text as one line of at most most bytes, whatever is in it: it
// may come from anybody.
func oneLine(text string, most int) string {
	const cut = "..."
	if len(text) > 4*most {
		text = text[:4*most] // the rest would be cut anyway
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	end := most - len(cut)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + cut
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return oneLine(line, maxQuote)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return oneLine(text[strings.LastIndex(text, "\n")+1:], maxQuote)
}

// then adds what somebody said to a reason, if it was anything.
func then(reason, said string) string {
	if said == "" {
		return reason
	}
	return reason + ": " + said
}
