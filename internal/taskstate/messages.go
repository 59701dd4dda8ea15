package taskstate

import (
	"strings"
	"unicode"
)

// MaxMessage bounds each message of a status, in bytes. It is also the limit of the
// API server for the note of an Event.
const MaxMessage = 1024

// TruncateMessage returns valid UTF-8 of at most so many bytes.
func TruncateMessage(message string, most int) string {
	message = strings.ToValidUTF8(message, "�")
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-len("…")], "") + "…"
}

// UpperFirst returns s with its first letter in upper case, as messages start.
func UpperFirst(s string) string {
	r := []rune(s)
	if len(r) > 0 {
		r[0] = unicode.ToUpper(r[0])
	}
	return string(r)
}
