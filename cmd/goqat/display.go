package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/goqat/goqat/train"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// display shows a run: a progress bar for each epoch on a terminal, plain lines otherwise, JSON lines for machines.
type display struct {
	out, progress io.Writer
	json          bool
	terminal      bool
	bar           *progressbar.ProgressBar
}

func newDisplay(out, progress io.Writer, asJSON bool) *display {
	file, ok := progress.(*os.File)
	return &display{out: out, progress: progress, json: asJSON, terminal: ok && !asJSON && term.IsTerminal(int(file.Fd()))}
}

// event shows what has happened.
func (d *display) event(e train.Event) {
	switch {
	case d.json:
		if e.Metric != nil {
			json.NewEncoder(d.out).Encode(e.Metric)
		}
	case e.Step != nil:
		d.step(e.Phase, e.Step)
	case e.Metric != nil:
		d.end()
		m := e.Metric
		fmt.Fprintf(d.progress, "%-9s epoch %2d  loss %.4f  %s accuracy %.4f%s\n", m.Phase, m.Epoch, m.Loss, m.Scored, m.Accuracy, searchText(m.Search))
	default:
		d.end()
		fmt.Fprintln(d.progress, e.Text)
	}
}

// step moves the bar of the epoch, on a terminal.
func (d *display) step(phase train.Phase, s *train.Step) {
	if !d.terminal {
		return
	}
	if d.bar == nil {
		d.bar = progressbar.NewOptions(max(1, s.Steps/s.Epochs)*s.Images,
			progressbar.OptionSetWriter(d.progress), progressbar.OptionSetDescription(fmt.Sprintf("%s epoch %d/%d", phase, s.Epoch, s.Epochs)),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString("images"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100e6))
	}
	d.bar.Describe(fmt.Sprintf("%s epoch %d/%d, loss %.4f", phase, s.Epoch, s.Epochs, s.MeanLoss()))
	d.bar.Add(s.Images)
}

// end takes the bar away.
func (d *display) end() {
	if d.bar != nil {
		d.bar.Finish()
		d.bar = nil
	}
}

// searchText tells of a search for weights; nothing where there is none.
func searchText(m *train.SearchMetric) string {
	if m == nil {
		return ""
	}
	text := fmt.Sprintf("  tau %.3g  entropy %.3f bits  soft %.4f", m.Temperature, m.Entropy, m.Soft)
	if m.Unmatched != nil {
		text += fmt.Sprintf("  without state BN %.4f", *m.Unmatched)
	}
	return text
}
