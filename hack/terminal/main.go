// Command terminal draws what a program printed, colours and all, as the SVG of a
// terminal: it reads the text from its standard input and writes the picture.
package main

import (
	"bufio"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	width, height = 8.4, 20 // of a character, in the SVG's units
	margin        = 16
	bar           = 28 // above the text
)

func main() {
	command := flag.String("command", "", "what the text is the output of: shown before it, after a prompt")
	flag.Parse()
	if err := draw(os.Stdin, os.Stdout, *command); err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
}

// piece is a part of a line in one style.
type piece struct {
	column      int
	text, style string
}

// styles are those of the select graphic rendition that are drawn, by its parameter.
var styles = map[string]string{"1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow", "36": "cyan"}

// escape is a control sequence. Of those, only the ones that end in m have to do
// with how text looks.
var escape = regexp.MustCompile("\x1b\\[([0-9;?]*)([A-Za-z])")

// split splits a line into pieces. style is that of its start, and then of its end.
func split(line string, style *string) (pieces []piece, columns int) {
	add := func(text string) {
		if text != "" {
			pieces = append(pieces, piece{columns, text, *style})
			columns += utf8.RuneCountInString(text)
		}
	}
	at := 0
	for _, m := range escape.FindAllStringSubmatchIndex(line, -1) {
		add(line[at:m[0]])
		at = m[1]
		if line[m[4]:m[5]] == "m" {
			*style = styles[line[m[2]:m[3]]]
		}
	}
	add(line[at:])
	return pieces, columns
}

func draw(in io.Reader, out io.Writer, command string) error {
	var lines [][]piece
	columns, style := 0, ""
	if command != "" {
		lines = append(lines, []piece{{0, "$", "green"}, {2, command, "bold"}})
	}
	text := bufio.NewScanner(in)
	for text.Scan() {
		pieces, n := split(strings.TrimRight(text.Text(), " \r"), &style)
		lines, columns = append(lines, pieces), max(columns, n)
	}
	if err := text.Err(); err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	fullWidth, fullHeight := int(float64(columns)*width)+2*margin, len(lines)*height+bar+2*margin
	_, _ = fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d">
<style>
text { fill: #e6edf3; font: 14px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }
.bold { font-weight: bold }
.dim { fill: #8b949e }
.red { fill: #ff7b72 }
.green { fill: #56d364 }
.yellow { fill: #e3b341 }
.cyan { fill: #76e3ea }
</style>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#0d1117"/>
<circle cx="20" cy="18" r="6" fill="#ff5f56"/><circle cx="40" cy="18" r="6" fill="#ffbd2e"/><circle cx="60" cy="18" r="6" fill="#27c93f"/>
`, fullWidth, fullHeight)
	for i, line := range lines {
		for _, p := range line {
			class := ""
			if p.style != "" {
				class = fmt.Sprintf(` class="%s"`, p.style)
			}
			// Fonts differ in width: the length keeps columns in line.
			_, _ = fmt.Fprintf(w, `<text x="%.1f" y="%d" textLength="%.1f" lengthAdjust="spacingAndGlyphs"%s xml:space="preserve">`,
				margin+float64(p.column)*width, bar+margin+(i+1)*height-6, float64(utf8.RuneCountInString(p.text))*width, class)
			if err := xml.EscapeText(w, []byte(p.text)); err != nil {
				return err
			}
			_, _ = fmt.Fprintln(w, "</text>")
		}
	}
	_, _ = fmt.Fprintln(w, "</svg>")
	return w.Flush()
}
