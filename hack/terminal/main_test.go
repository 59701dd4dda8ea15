package main

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
)

func TestALineIsSplitIntoItsStyles(t *testing.T) {
	style := ""
	pieces, columns := split("a\x1b[32mTrüe\x1b[0m \x1b[2Kb\x1b[1mc", &style)
	want := []piece{{0, "a", ""}, {1, "Trüe", "green"}, {5, " ", ""}, {6, "b", ""}, {7, "c", "bold"}}
	if !slices.Equal(pieces, want) || columns != 8 || style != "bold" {
		t.Errorf("got %+v, %d columns, %q", pieces, columns, style)
	}
}

func TestThePictureIsXMLAndHasTheText(t *testing.T) {
	var out strings.Builder
	if err := draw(strings.NewReader("one <two>\n\n\x1b[31mthree\x1b[0m & four\n"), &out, "make demo"); err != nil {
		t.Fatal(err)
	}
	var picture struct {
		Text []struct {
			Class string `xml:"class,attr"`
			Text  string `xml:",chardata"`
		} `xml:"text"`
	}
	if err := xml.Unmarshal([]byte(out.String()), &picture); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, text := range picture.Text {
		got = append(got, text.Class+":"+text.Text)
	}
	if want := []string{"green:$", "bold:make demo", ":one <two>", "red:three", ": & four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
