package main

import (
	"bytes"
	"image/color"
	"io"
	"path/filepath"
	"strings"

	"github.com/goqat/goqat/internal/atomicfile"
	"github.com/goqat/goqat/layers"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of the picture.
const (
	plotBins   = 160
	plotWidth  = 8 * vg.Inch
	plotHeight = 4 * vg.Inch
)

// canvas is a picture in the making.
type canvas interface {
	vg.CanvasSizer
	io.WriterTo
}

// canvasFor returns what makes a canvas of the kind that a file's name says.
func canvasFor(path string) (func() canvas, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".svg":
		return func() canvas { return vgsvg.New(plotWidth, plotHeight) }, nil
	case ".png":
		return func() canvas { return vgimg.PngCanvas{Canvas: vgimg.New(plotWidth, plotHeight)} }, nil
	}
	return nil, usagef("inspect: plot %s: want a file name that ends in .svg or .png", path)
}

// plot draws a histogram of the layer into a file.
func (c *closeup) plot(path string, h layers.Histogram) error {
	newCanvas, err := canvasFor(path)
	if err != nil {
		return err
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title(), "value", "count"
	if c.Method != "" {
		p.Title.Text += " (" + c.Method + ")"
	}
	p.X.Min, p.X.Max, p.Y.Min = float64(h.Low), float64(h.High), 0
	p.Add(histogramBars(h), levelTicks(h.Levels))
	picture := newCanvas()
	p.Draw(draw.New(picture))
	var data bytes.Buffer
	if _, err := picture.WriteTo(&data); err != nil {
		return err
	}
	return atomicfile.Write(path, data.Bytes(), 0o644)
}

// histogramBars are the counts as bars.
func histogramBars(h layers.Histogram) *plotter.Histogram {
	width := float64(h.High-h.Low) / float64(len(h.Counts))
	bins := &plotter.Histogram{Width: width, FillColor: color.Gray{200}}
	for i, n := range h.Counts {
		low := float64(h.Low) + float64(float64(i)*width)
		bins.Bins = append(bins.Bins, plotter.HistogramBin{Min: low, Max: low + width, Weight: float64(n)})
	}
	return bins
}

// levelTicks draws levels as vertical lines: whole ones, up to as many as can be told apart, or short ones at the bottom.
type levelTicks []layers.Level

// distinctLevels is the number of levels up to which lines run from bottom to top.
const distinctLevels = 64

// Plot draws the lines.
func (t levelTicks) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	top := c.Max.Y
	if len(t) > distinctLevels {
		top = c.Min.Y + (c.Max.Y-c.Min.Y)/20
	}
	for _, l := range t {
		style := draw.LineStyle{Color: color.RGBA{R: 200, A: 255}, Width: vg.Points(0.5)}
		if l.Count == 0 {
			style.Dashes = []vg.Length{vg.Points(2), vg.Points(2)}
		}
		at := x(float64(l.Value))
		c.StrokeLine2(style, at, c.Min.Y, at, top)
	}
}
