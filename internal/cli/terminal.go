package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	file, isFile := stream.(interface{ Fd() uintptr })
	return isFile && term.IsTerminal(int(file.Fd()))
}

// isRichTerminal reports whether a stream is a terminal that moves its cursor, for a progress bar.
func isRichTerminal(stream any) bool { return isTerminal(stream) && os.Getenv("TERM") != "dumb" }

// terminalWidth returns the width of a terminal, or 80 if it is unknown.
func terminalWidth(stream any) int {
	if file, isFile := stream.(interface{ Fd() uintptr }); isFile {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// color is an SGR parameter of a terminal.
type color string

const (
	colorNone   color = ""
	colorBold   color = "1"
	colorFaint  color = "2"
	colorRed    color = "31"
	colorGreen  color = "32"
	colorYellow color = "33"
)

// painter colours texts for one stream. Its zero value does not.
type painter struct{ isOn bool }

// newPainter returns a painter for a stream. It colours on terminals only, and not if NO_COLOR is set
// (no-color.org) or TERM is dumb.
func newPainter(stream any) painter {
	return painter{isOn: isRichTerminal(stream) && os.Getenv("NO_COLOR") == ""}
}

// paint returns a text in a color.
func (p painter) paint(c color, text string) string {
	if !p.isOn || c == colorNone || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// printLine prints a text as one line.
func printLine(w io.Writer, format string, args ...any) error {
	_, err := io.WriteString(w, printable(fmt.Sprintf(format, args...))+"\n")
	return err
}

// printable returns a text as one line, and replaces the characters that a terminal takes for commands:
// texts come from files, servers and statuses. All that is printed for people goes through it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '?'
	}, text)
}
