package taskstate

import (
	"strings"
	"unicode"
)

// MaxMessage bounds each message of a status, in bytes. The API server has the same limit
// for the note of an Event.
const MaxMessage = 1024

// TruncateMessage returns the message as valid UTF-8 of at most most bytes. A truncated
// message ends with an ellipsis.
func TruncateMessage(message string, most int) string {
	message = strings.ToValidUTF8(message, "�")
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-len("…")], "") + "…"
}

// UpperFirst returns s with its first letter in upper case, as messages of conditions
// start.
func UpperFirst(s string) string {
	r := []rune(s)
	if len(r) > 0 {
		r[0] = unicode.ToUpper(r[0])
	}
	return string(r)
}
