package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/monitoring/stack"
)

// Sizes in pixels. Grafana's grid has 24 columns.
const (
	width     = 1200
	column    = width / 24
	row       = 27
	gap       = 8
	left      = 62 // margin of a plot, for the values of the axis
	top       = 34 // margin for the title
	right     = 14
	axis      = 20 // height of the time axis
	legendRow = 16
)

// palette has colours on white that people with colour blindness can distinguish.
var palette = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#8c8c00", "#444444", "#b15928"}

// line is one series of a panel.
type line struct {
	legend string
	points []stack.Point
}

// last returns the newest number.
func (l line) last() float64 {
	for _, p := range slices.Backward(l.points) {
		if isNumber(p.Value) {
			return p.Value
		}
	}
	return 0
}

func isNumber(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// picture is a dashboard as SVG.
type picture struct {
	start, end time.Time
	body       strings.Builder
	height     int
}

func (p *picture) svg() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d"
  font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="12" fill="#333">
<rect width="100%%" height="100%%" fill="#f0f1f4"/>
%s</svg>
`, width, p.height+gap, width, p.height+gap, p.body.String())
}

func (p *picture) addf(format string, args ...any) { fmt.Fprintf(&p.body, format+"\n", args...) }

func (p *picture) text(x, y float64, attributes, text string) {
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(text)) // writes to a strings.Builder never fail
	p.addf(`<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, attributes, escaped.String())
}

// box is an area of the picture.
type box struct{ x, y, w, h float64 }

func (p *picture) draw(panel stack.Panel, lines []line) {
	at := panel.GridPos
	b := box{float64(at.X*column) + gap, float64(at.Y*row) + gap, float64(at.W*column) - gap, float64(at.H*row) - gap}
	if at.X+at.W >= 24 {
		b.w -= gap
	}
	p.height = max(p.height, int(b.y+b.h))
	p.addf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="#fff" stroke="#d8dae0"/>`, b.x, b.y, b.w, b.h)
	p.text(b.x+10, b.y+20, `font-size="13" font-weight="bold"`, panel.Title)
	unit := panel.FieldConfig.Defaults.Unit
	if panel.Type == "stat" {
		p.text(b.x+b.w/2, b.y+b.h/2+22, `font-size="32" text-anchor="middle" fill="#0072b2"`, format(unit, lines[0].last()))
		return
	}
	slices.SortStableFunc(lines, func(a, b line) int { return strings.Compare(a.legend, b.legend) })
	rows := p.legend(b, lines)
	plot := box{b.x + left, b.y + top, b.w - left - right, b.h - top - axis - float64(rows*legendRow) - 6}
	p.plot(plot, panel, lines)
}

// legend writes the names of the lines at the bottom, and returns the number of rows.
func (p *picture) legend(b box, lines []line) int {
	const charWidth, swatch = 6.4, 22
	type entry struct {
		x   float64
		row int
	}
	var entries []entry
	x, rows := b.x+12, 1
	for _, l := range lines {
		w := swatch + charWidth*float64(len(l.legend)) + 12
		if x+w > b.x+b.w && x > b.x+12 {
			x, rows = b.x+12, rows+1
		}
		entries = append(entries, entry{x, rows})
		x += w
	}
	for i, e := range entries {
		y := b.y + b.h - float64((rows-e.row)*legendRow) - 10
		p.addf(`<rect x="%.1f" y="%.1f" width="14" height="3" fill="%s"/>`, e.x, y-5, colour(i))
		p.text(e.x+swatch-2, y, `font-size="11"`, lines[i].legend)
	}
	return rows
}

func colour(i int) string { return palette[i%len(palette)] }

// plot draws the axes and the lines.
func (p *picture) plot(b box, panel stack.Panel, lines []line) {
	highest := 0.0
	for _, l := range lines {
		for _, point := range l.points {
			if isNumber(point.Value) {
				highest = max(highest, point.Value)
			}
		}
	}
	unit := panel.FieldConfig.Defaults.Unit
	step := tick(unit, highest)
	end := max(step, step*math.Ceil(highest/step))
	if most := panel.FieldConfig.Defaults.Max; most != nil {
		end = *most
	}
	y := func(v float64) float64 { return b.y + b.h*(1-v/end) }
	x := func(t time.Time) float64 {
		return b.x + b.w*float64(t.Sub(p.start))/float64(p.end.Sub(p.start))
	}
	for v := 0.0; v <= end*1.001; v += step {
		p.addf(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#e4e6eb"/>`, b.x, b.x+b.w, y(v), y(v))
		p.text(b.x-6, y(v)+4, `font-size="11" text-anchor="end" fill="#666"`, format(unit, v))
	}
	every := p.end.Sub(p.start) / 4
	for at := time.Duration(0); at <= p.end.Sub(p.start); at += every {
		anchor := "middle"
		if at == 0 {
			anchor = "start"
		} else if at+every > p.end.Sub(p.start) {
			anchor = "end"
		}
		seconds := int(at.Round(time.Second).Seconds())
		p.text(x(p.start.Add(at)), b.y+b.h+15, `font-size="11" fill="#666" text-anchor="`+anchor+`"`, fmt.Sprintf("%d:%02d", seconds/60, seconds%60))
	}
	for i, l := range lines {
		p.addf(`<path d="%s" fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round"/>`, path(l.points, x, y), colour(i))
	}
}

// path connects consecutive points.
func path(points []stack.Point, x func(time.Time) float64, y func(float64) float64) string {
	var d strings.Builder
	var before time.Time
	for _, point := range points {
		if !isNumber(point.Value) {
			continue
		}
		command := "L"
		if before.IsZero() || point.Time.Sub(before) > 2*stack.ScrapeInterval {
			command = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", command, x(point.Time), y(point.Value))
		before = point.Time
	}
	return d.String()
}

// tick returns the distance between grid lines: 1, 2 or 5 times a power of ten, or a power
// of two for bytes.
func tick(unit string, highest float64) float64 {
	if highest <= 0 {
		return 1
	}
	if unit == "s" && highest >= 120 { // formatted in minutes
		return 60 * tick("min", highest/60)
	}
	rough := highest / 4
	if unit == "bytes" {
		return math.Exp2(math.Ceil(math.Log2(rough)))
	}
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= rough {
			return m * power
		}
	}
	return 10 * power
}

// format formats a value in a unit, which has Grafana's name.
func format(unit string, v float64) string {
	number := func(v float64) string { return fmt.Sprintf("%.4g", v) }
	switch {
	case unit == "percentunit":
		return number(math.Round(v*1000)/10) + " %"
	case unit == "bytes":
		return number(math.Round(v/(1<<20))) + " MiB"
	case unit == "reqps":
		return number(v) + "/s"
	case unit == "s" && v == 0:
		return "0 s"
	case unit == "s" && v < 1:
		return number(math.Round(v*1000)) + " ms"
	case unit == "s" && v >= 120:
		return number(math.Round(v/6)/10) + " min"
	case unit == "s":
		return number(math.Round(v*10)/10) + " s"
	case v >= 10000:
		return number(math.Round(v/100)/10) + " k"
	}
	return number(math.Round(v*100) / 100)
}
