package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goqat/goqat/layers"
)

// Size of the histogram on a terminal of 80 columns.
const (
	histogramColumns = 70
	histogramRows    = 12
	histogramMargin  = 80 - histogramColumns
)

// print writes the table for people.
func (s *inspection) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(s.headings(), "\t"))
	for i := range s.Layers {
		fmt.Fprintln(t, strings.Join(s.row(&s.Layers[i]), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d weights, %s bits each on average; codes and scales %d bytes, tables %d, as float32 %d\n", s.Weights, digits(s.MeanBits), s.Bytes, s.TableBytes, s.FloatBytes)
	if s.Methods != "" {
		fmt.Fprintf(w, "method of the weights: %s\n", printable(s.Methods))
	}
	if s.ModelBytes > 0 {
		fmt.Fprintf(w, "integer model: %d bytes\n", s.ModelBytes)
	}
	return nil
}

func (s *inspection) headings() []string {
	if s.method {
		return []string{"LAYER", "SHAPE", "METHOD", "BITS", "RANGE", "LEVELS", "SQNR", "SQUARED ERROR", "/ LINEAR", "GAIN", "BYTES", "PARAMETERS"}
	}
	return []string{"LAYER", "SHAPE", "BITS", "RANGE", "LEVELS", "BYTES", "SCALES"}
}

// row tells of a layer what the headings name.
func (s *inspection) row(l *layers.LayerInspection) []string {
	cells := []string{printable(l.Name), shapeText(l.Shape)}
	if s.method {
		cells = append(cells, l.Method)
	}
	cells = append(cells, bitsOf(l), rangeText(l), levelsText(l))
	if s.method {
		return append(cells, decibels(l.SQNR), digits(l.SquaredError), digits(l.Ratio), digits(l.Gain), strconv.FormatInt(l.Bytes, 10), parameterText(l))
	}
	return append(cells, strconv.FormatInt(l.Bytes, 10), scaleText(l))
}

// bitsOf tells the bits of a code and of how many weights it is, or where they are others the bits of the method.
func bitsOf(l *layers.LayerInspection) string {
	if l.Vector > 1 {
		return fmt.Sprintf("%d/%d", l.CodeBits, l.Vector)
	}
	if l.MethodBits == 0 || l.MethodBits == l.CodeBits {
		return strconv.Itoa(l.CodeBits)
	}
	return fmt.Sprintf("%d (%d)", l.CodeBits, l.MethodBits)
}

func rangeText(l *layers.LayerInspection) string { return digits(l.Low) + " … " + digits(l.High) }

func levelsText(l *layers.LayerInspection) string {
	if len(l.Planes) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", l.LevelsUsed, l.LevelsPossible)
}

// parameterText tells the parameters of the quantizer, or of a codebook how many centroids it has.
func parameterText(l *layers.LayerInspection) string {
	switch {
	case len(l.Parameters) == 0 && len(l.Planes) > 0:
		return fmt.Sprintf("%d centroids, scale %s", 1<<l.CodeBits, scaleText(l))
	case len(l.Parameters) == 0:
		return "-"
	}
	list := make([]string, len(l.Parameters))
	for i, p := range l.Parameters {
		list[i] = p.Name + " " + summaryText(p.Summary, p.Rows)
	}
	return strings.Join(list, ", ")
}

func scaleText(l *layers.LayerInspection) string {
	list := make([]string, len(l.Planes))
	for i, p := range l.Planes {
		list[i] = summaryText(p.Scale, p.Scales)
	}
	return strings.Join(list, ", ")
}

// summaryText tells one number, or the least, the middle and the greatest of several.
func summaryText(s layers.Summary, count int) string {
	if count == 1 {
		return digits(s.Min)
	}
	return digits(s.Min) + "/" + digits(s.Median) + "/" + digits(s.Max)
}

// shapeText returns for example 16x6x5x5.
func shapeText(shape []int) string {
	list := make([]string, len(shape))
	for i, size := range shape {
		list[i] = strconv.Itoa(size)
	}
	return strings.Join(list, "x")
}

// digits writes a number with four digits; - for none.
func digits(f layers.Figure) string {
	if math.IsNaN(float64(f)) {
		return "-"
	}
	return strconv.FormatFloat(float64(f), 'g', 4, 64)
}

func decibels(f layers.Figure) string {
	switch {
	case math.IsNaN(float64(f)):
		return "-"
	case math.IsInf(float64(f), 1):
		return "exact"
	}
	return strconv.FormatFloat(float64(f), 'f', 2, 64) + " dB"
}

// printable returns text from a file as it can go to a terminal.
func printable(text string) string {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// print writes a layer and its histogram for people.
func (c *closeup) print(w io.Writer, method bool) error {
	l := &c.LayerInspection
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "layer\t%s, %s\n", printable(l.Name), shapeText(l.Shape))
	if method {
		fmt.Fprintf(t, "method\t%s\n", l.Method)
	}
	fmt.Fprintf(t, "bits\t%s\nrange\t%s\nlevels\t%s used\nbytes\t%d, tables %d more\n", bitsOf(l), rangeText(l), levelsText(l), l.Bytes, l.TableBytes)
	for _, p := range l.Parameters {
		fmt.Fprintf(t, "%s\t%s (%s)\n", p.Name, summaryText(p.Summary, p.Rows), p.Kind)
	}
	for i, p := range l.Planes {
		fmt.Fprintf(t, "plane %d\tintegers %d to %d, scale %s\n", i, p.Low, p.High, summaryText(p.Scale, p.Scales))
	}
	if method && len(l.Planes) > 0 {
		fmt.Fprintf(t, "error\t%s squared, %s, %s of linear's\n", digits(l.SquaredError), decibels(l.SQNR), digits(l.Ratio))
		fmt.Fprintf(t, "best gain\t%s, with it %s\n", digits(l.Gain), decibels(l.ScaledSQNR))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n%s", c.title(), histogramText(c.Histogram))
	return err
}

// title says what the histogram is of.
func (c *closeup) title() string {
	what := "weights of " + printable(c.Name)
	if !c.real {
		what = "values of the codes of " + printable(c.Name)
	}
	if c.Channel != nil {
		what += fmt.Sprintf(", channel %d", *c.Channel)
	}
	return what
}

// bars are an eighth to eight eighths of a character.
var bars = []rune("▁▂▃▄▅▆▇█")

// histogramText draws the counts as columns, with a mark below each that has a level: | one that weights have, . one that
// none has.
func histogramText(h layers.Histogram) string {
	most := 1
	for _, n := range h.Counts {
		most = max(most, n)
	}
	var text strings.Builder
	for row := histogramRows - 1; row >= 0; row-- {
		label := ""
		switch row {
		case histogramRows - 1:
			label = strconv.Itoa(most)
		case 0:
			label = "0"
		}
		line := fmt.Sprintf("%*s ", histogramMargin-1, label)
		for _, n := range h.Counts {
			line += string(barAt(n, most, row))
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if len(h.Levels) > 0 {
		text.WriteString(strings.TrimRight(fmt.Sprintf("%*s ", histogramMargin-1, "levels")+string(levelMarks(h)), " ") + "\n")
	}
	low, high := digits(h.Low), digits(h.High)
	fmt.Fprintf(&text, "%*s%s%*s\n", histogramMargin, "", low, histogramColumns-len(low), high)
	return text.String()
}

// barAt returns the part of a bar that lies in a row, from 0 at the bottom; what is there at all shows.
func barAt(n, most, row int) rune {
	eighths := (n*histogramRows*8 + most/2) / most
	if n > 0 {
		eighths = max(eighths, 1)
	}
	if eighths -= 8 * row; eighths <= 0 {
		return ' '
	}
	return bars[min(eighths, 8)-1]
}

func levelMarks(h layers.Histogram) []rune {
	marks := []rune(strings.Repeat(" ", len(h.Counts)))
	for _, l := range h.Levels {
		at := h.Bin(float64(l.Value))
		switch {
		case l.Count > 0:
			marks[at] = '|'
		case marks[at] == ' ':
			marks[at] = '.'
		}
	}
	return marks
}
