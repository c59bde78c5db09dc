package bootstrap

import (
	"errors"
	"strings"
)

// split cuts a line into words as a shell does, without its expansions:
// blanks part words, single and double quotes keep them, a backslash keeps one
// character, a # at a word's beginning ends the line. end is where the comment
// begins.
func split(line string) (words []string, end int, err error) {
	var word strings.Builder
	in, quote, escaped := false, byte(0), false
	flush := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case escaped:
			word.WriteByte(c)
			escaped = false
		case c == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			in, quote = true, c
		case c == ' ' || c == '\t' || c == '\r':
			flush()
		case c == '#' && !in:
			return words, i, nil
		default:
			in = true
			word.WriteByte(c)
		}
	}
	switch {
	case quote != 0:
		return nil, len(line), errors.New("a quote is not closed: " + string(quote))
	case escaped:
		return nil, len(line), errors.New("a backslash ends the line: a host is one line")
	}
	flush()
	return words, len(line), nil
}

// quote makes one word of text for a POSIX shell.
func quote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
