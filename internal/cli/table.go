package cli

import (
	"io"
	"strings"
	"unicode/utf8"
)

// cell is a text of a table, in a color or in none.
type cell struct {
	text  string
	color color
}

// table is printed in columns, as kubectl's tables are.
type table struct {
	header []string
	rows   [][]cell
}

// addRow adds a row of texts.
func (t *table) addRow(texts ...string) {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].text = printable(text)
	}
	t.rows = append(t.rows, row)
}

// print writes the table. An empty text becomes <none>, as in kubectl's tables.
func (t *table) print(w io.Writer, paint painter) error {
	header := make([]cell, len(t.header))
	for i, text := range t.header {
		header[i] = cell{text: text}
	}
	rows := append([][]cell{header}, t.rows...)
	widths := make([]int, len(t.header))
	for _, row := range rows {
		for i := range row {
			if row[i].text == "" {
				row[i].text = "<none>"
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			b.WriteString(paint.paint(c.color, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
