package models

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goqat/goqat/layers"
)

// Report says how the tensors of a checkpoint correspond to the parameters of a network.
type Report struct {
	Matched    []Match    // in the order of the network
	Missing    []string   // parameters of the network that the checkpoint has no tensor for
	Mismatched []Mismatch // parameters whose tensor has another shape
	Lost       []string   // tensors that a layer found in both would need, as the bias of a convolution without one here
	Unused     []string   // other tensors of the checkpoint, under its names
}

// Match is a parameter of the network and the checkpoint's name of its tensor.
type Match struct{ Parameter, Tensor string }

// Mismatch is a match of different shapes.
type Mismatch struct {
	Match
	Want, Got []int // of the parameter, of the tensor
}

// Complete says whether the checkpoint determines the network.
func (r Report) Complete() bool {
	return len(r.Missing) == 0 && len(r.Mismatched) == 0 && len(r.Lost) == 0
}

// String returns a line for each kind of finding; the first line counts.
func (r Report) String() string {
	total := len(r.Matched) + len(r.Missing) + len(r.Mismatched)
	text := fmt.Sprintf("%d of %d parameters matched\n", len(r.Matched), total)
	if len(r.Missing) > 0 {
		text += "missing in the checkpoint: " + strings.Join(r.Missing, ", ") + "\n"
	}
	for _, m := range r.Mismatched {
		text += "another shape: " + m.String() + "\n"
	}
	if len(r.Lost) > 0 {
		text += "no place in the network's layer: " + strings.Join(r.Lost, ", ") + "\n"
	}
	if len(r.Unused) > 0 {
		text += "unused in the checkpoint: " + strings.Join(r.Unused, ", ") + "\n"
	}
	return text
}

func (m Mismatch) String() string {
	return fmt.Sprintf("%s is %v, the checkpoint's %s is %v", m.Parameter, m.Want, m.Tensor, m.Got)
}

// err describes an incomplete report in one line, with the first of each kind.
func (r Report) err() error {
	var reasons []string
	if n := len(r.Missing); n > 0 {
		reasons = append(reasons, fmt.Sprintf("no tensor for %d parameters, the first is %s", n, r.Missing[0]))
	}
	if n := len(r.Mismatched); n > 0 {
		reasons = append(reasons, fmt.Sprintf("another shape of %d, the first: %v", n, r.Mismatched[0]))
	}
	if n := len(r.Lost); n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d tensors that the network's layers have no place for, the first is %s", n, r.Lost[0]))
	}
	return fmt.Errorf("models: the checkpoint does not fit the network: %s", strings.Join(reasons, "; "))
}

// Assign sets the network's own parameters, not those of quantizers, to tensors of the same names and fits the weights'
// quantizers to them. Names of common PyTorch residual networks are translated; convolution weights are [out][in][rows]
// [columns] and linear ones [out][in] on both sides, with inputs in the order channel, row, column. It is all or nothing:
// unless every parameter has a finite tensor of its shape, and no layer leaves one out, the network is as it was and the error
// says why. The report is complete in both cases.
func Assign(network *layers.Network, tensors []Tensor) (Report, error) {
	params := network.FloatParams()
	own := map[string]bool{}
	for _, p := range params {
		own[p.Name] = true
	}
	byName, err := translated(newTranslator(own, tensors), tensors)
	if err != nil {
		return Report{}, err
	}
	r := compare(params, byName)
	r.addRest(tensors, byName)
	if !r.Complete() {
		return r, r.err()
	}
	for _, p := range params {
		if err := byName[p.Name].check(); err != nil {
			return r, err
		}
	}
	for _, p := range params {
		p.Set(byName[p.Name].Data)
	}
	network.Fit()
	return r, nil
}

// translated returns the tensors by the network's names.
func translated(n *translator, tensors []Tensor) (map[string]*Tensor, error) {
	byName := map[string]*Tensor{}
	for i := range tensors {
		t := &tensors[i]
		name := n.translate(t.Name)
		if other := byName[name]; other != nil {
			return nil, fmt.Errorf("models: the checkpoint's tensors %q and %q are both the network's %s", other.Name, t.Name, name)
		}
		byName[name] = t
	}
	return byName, nil
}

// compare sorts the parameters into matched, missing and mismatched.
func compare(params []layers.FloatParam, byName map[string]*Tensor) Report {
	var r Report
	for _, p := range params {
		t, shape := byName[p.Name], p.Shape
		switch {
		case t == nil:
			r.Missing = append(r.Missing, p.Name)
		case !slices.Equal(t.Shape, shape):
			r.Mismatched = append(r.Mismatched, Mismatch{Match{p.Name, t.Name}, slices.Clone(shape), t.Shape})
		default:
			r.Matched = append(r.Matched, Match{p.Name, t.Name})
		}
	}
	return r
}

// batchCounter is a tensor of batch normalization that evaluation does not need.
const batchCounter = "num_batches_tracked"

// addRest sorts the tensors that no parameter has taken into lost and unused, in the order of the checkpoint.
func (r *Report) addRest(tensors []Tensor, byName map[string]*Tensor) {
	taken, found := map[string]bool{}, map[string]bool{}
	for _, m := range r.Matched {
		layer, _ := splitName(m.Parameter)
		taken[m.Tensor], found[layer] = true, true
	}
	for _, m := range r.Mismatched {
		taken[m.Tensor] = true
	}
	lost := map[string]bool{}
	for name, t := range byName {
		layer, field := splitName(name)
		lost[t.Name] = found[layer] && field != batchCounter
	}
	for _, t := range tensors {
		switch {
		case taken[t.Name]:
		case lost[t.Name]:
			r.Lost = append(r.Lost, t.Name)
		default:
			r.Unused = append(r.Unused, t.Name)
		}
	}
}

// splitName cuts a parameter's name into layer and field at the last dot.
func splitName(name string) (layer, field string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

// check looks for numbers that no network can compute with, and for data of another size than the shape says.
func (t *Tensor) check() error {
	n := 1
	for _, size := range t.Shape {
		n *= size
	}
	if len(t.Data) != n {
		return fmt.Errorf("models: tensor %q of shape %v has %d elements", t.Name, t.Shape, len(t.Data))
	}
	for i, v := range t.Data {
		if v64 := float64(v); math.IsNaN(v64) || math.IsInf(v64, 0) {
			return fmt.Errorf("models: tensor %q has %v at element %d: want finite numbers", t.Name, v, i)
		}
	}
	return nil
}
