package models

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/torch/checkpoints"
	"github.com/goqat/goqat/layers"
)

// parameters is a layer that is nothing but its parameters.
type parameters struct {
	layers.Layer
	list []*layers.Param
}

func (p *parameters) Params() []*layers.Param { return p.list }

func (p *parameters) add(name string, shape ...int) {
	p.list = append(p.list, &layers.Param{Name: name, Value: tensor.New(tensor.WithShape(shape...), tensor.Of(tensor.Float32))})
}

func (p *parameters) conv(name string, out, in, kernel int, bias bool) {
	p.add(name+".weight", out, in, kernel, kernel)
	if bias {
		p.add(name+".bias", out)
	}
}

func (p *parameters) norm(name string, channels int) {
	for _, field := range []string{"weight", "bias", "running_mean", "running_var"} {
		p.add(name+"."+field, channels)
	}
}

// residual has the parameters of a residual network with three stages.
type residual struct {
	blocks       int
	bias         bool // of convolutions
	shortcutConv bool
	shortcutNorm bool
}

func (r residual) network() *layers.Network {
	p := &parameters{}
	p.conv("conv1", 16, 3, 3, r.bias)
	p.norm("bn1", 16)
	in := 16
	for stage, out := range []int{16, 32, 64} {
		for block := range r.blocks {
			name := fmt.Sprintf("layer%d.%d", stage+1, block)
			p.conv(name+".conv1", out, in, 3, r.bias)
			p.norm(name+".bn1", out)
			p.conv(name+".conv2", out, out, 3, r.bias)
			p.norm(name+".bn2", out)
			if in != out && r.shortcutConv {
				p.conv(name+".shortcut.conv", out, in, 1, r.bias)
			}
			if in != out && r.shortcutNorm {
				p.norm(name+".shortcut.bn", out)
			}
			in = out
		}
	}
	p.add("fc.weight", 10, 64)
	p.add("fc.bias", 10)
	return &layers.Network{Root: p}
}

// numbered returns tensors for all parameters, each with numbers of its own.
func numbered(network *layers.Network, rename func(string) string) []Tensor {
	var tensors []Tensor
	for i, p := range network.Params() {
		data := make([]float32, len(p.Data()))
		for j := range data {
			data[j] = float32(i) + float32(j)/16384
		}
		tensors = append(tensors, Tensor{rename(p.Name), p.Value.Shape().Clone(), data})
	}
	return tensors
}

// requireAssigned demands that each parameter, in order, has a tensor's numbers.
func requireAssigned(t *testing.T, network *layers.Network, tensors []Tensor) {
	t.Helper()
	for i, p := range network.Params() {
		require.Equal(t, tensors[i].Data, p.Data(), p.Name)
	}
}

func TestAssignNamings(t *testing.T) {
	t.Parallel()
	optionA := residual{blocks: 3}
	optionB := residual{blocks: 2, shortcutConv: true, shortcutNorm: true}
	own := strings.NewReplacer()
	torchvision := strings.NewReplacer(".shortcut.conv.", ".downsample.0.", ".shortcut.bn.", ".downsample.1.")
	kuangliu := strings.NewReplacer(".shortcut.conv.", ".shortcut.0.", ".shortcut.bn.", ".shortcut.1.", "fc.", "linear.")
	for name, test := range map[string]struct {
		shape  residual
		names  *strings.Replacer
		prefix string
	}{
		"own":                   {optionB, own, ""},
		"akamaster":             {optionA, kuangliu, "module."},
		"kuangliu":              {optionB, kuangliu, ""},
		"torchvision":           {optionB, torchvision, ""},
		"chenyaofo":             {optionB, torchvision, ""},
		"shortcut and fc":       {optionB, strings.NewReplacer(".shortcut.conv.", ".shortcut.0.", ".shortcut.bn.", ".shortcut.1."), ""},
		"timm":                  {optionB, strings.NewReplacer(".shortcut.conv.", ".downsample.0.", ".shortcut.bn.", ".downsample.1.", "fc.", "classifier."), ""},
		"DataParallel, nested":  {optionB, torchvision, "module.module."},
		"compiled DataParallel": {optionB, torchvision, "_orig_mod.module."},
		"Lightning":             {optionB, own, "model."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			network := test.shape.network()
			tensors := numbered(network, func(s string) string { return test.prefix + test.names.Replace(s) })
			counter := Tensor{Name: test.prefix + "bn1.num_batches_tracked", Shape: []int{1}, Data: []float32{9}}
			report, err := Assign(network, append(slices.Clone(tensors), counter))
			require.NoError(t, err)
			require.True(t, report.Complete())
			require.Len(t, report.Matched, len(tensors))
			for i, m := range report.Matched {
				require.Equal(t, Match{network.Params()[i].Name, tensors[i].Name}, m)
			}
			require.Equal(t, []string{counter.Name}, report.Unused)
			requireAssigned(t, network, tensors)
		})
	}
}

// TestAssignOwnNameWins gives a network that calls a layer as others call theirs.
func TestAssignOwnNameWins(t *testing.T) {
	t.Parallel()
	p := &parameters{}
	p.add("linear.bias", 1)
	p.add("fc.bias", 1)
	p.add("model.bias", 1)
	network := &layers.Network{Root: p}
	tensors := numbered(network, func(s string) string { return s })
	_, err := Assign(network, tensors)
	require.NoError(t, err)
	requireAssigned(t, network, tensors)
}

func TestAssignResNet20(t *testing.T) {
	t.Parallel()
	tensors, err := ReadTensors(checkpoints.Path(t, "resnet20-12fca82f.th"))
	require.NoError(t, err)
	network := residual{blocks: 3}.network()
	report, err := Assign(network, tensors)
	require.NoError(t, err)
	require.Equal(t, "97 of 97 parameters matched\n", report.String())
	requireAssigned(t, network, tensors) // the file's order is the network's
}

func TestAssignResNet8(t *testing.T) {
	t.Parallel()
	tensors, err := ReadTensors(checkpoints.Path(t, "resnet8-mlperf-tiny.safetensors"))
	require.NoError(t, err)
	network := residual{blocks: 1, bias: true, shortcutConv: true}.network()
	report, err := Assign(network, tensors)
	require.NoError(t, err)
	require.Equal(t, "48 of 48 parameters matched\n", report.String())
	read := byName(tensors)
	for _, p := range network.Params() {
		if p.Name == "layer3.0.conv1.bias" {
			require.Equal(t, read["conv6.bias"].Data, p.Data())
		}
	}

	report, err = Assign(residual{blocks: 1, shortcutConv: true}.network(), tensors)
	require.ErrorContains(t, err, "9 tensors that the network's layers have no place for, the first is conv0.bias")
	require.Len(t, report.Lost, 9)
}

// TestNumberings checks that the tables name each layer once and have the layers of their signature.
func TestNumberings(t *testing.T) {
	t.Parallel()
	for _, n := range numberings {
		seen := map[string]bool{}
		for _, own := range n.layers {
			require.False(t, seen[own], own)
			seen[own] = true
		}
		for _, name := range n.signature {
			layer, _ := splitName(name)
			require.Contains(t, n.layers, layer)
		}
	}
}

func TestAssignRefuses(t *testing.T) {
	t.Parallel()
	fits := func() []Tensor { return numbered(residual{blocks: 1}.network(), func(s string) string { return s }) }
	for name, test := range map[string]struct {
		tensors []Tensor
		want    string
	}{
		"nothing":  {nil, "no tensor for 37 parameters, the first is conv1.weight"},
		"missing":  {fits()[1:], "models: the checkpoint does not fit the network: no tensor for 1 parameters, the first is conv1.weight"},
		"shape":    {slices.Concat(fits()[:36], []Tensor{{"fc.bias", []int{5}, make([]float32, 5)}}), "another shape of 1, the first: fc.bias is [10], the checkpoint's fc.bias is [5]"},
		"lost":     {append(fits(), Tensor{"conv1.bias", []int{16}, make([]float32, 16)}), "1 tensors that the network's layers have no place for, the first is conv1.bias"},
		"twice":    {append(fits(), Tensor{"linear.bias", []int{10}, make([]float32, 10)}), `"fc.bias" and "linear.bias" are both the network's fc.bias`},
		"infinite": {slices.Concat(fits()[:36], []Tensor{{"fc.bias", []int{10}, []float32{0, 1, 2, 3, 4, 5, 6, 7, float32(math.Inf(-1)), 9}}}), `tensor "fc.bias" has -Inf at element 8`},
		"NaN":      {slices.Concat(fits()[:36], []Tensor{{"fc.bias", []int{10}, slices.Repeat([]float32{float32(math.NaN())}, 10)}}), "has NaN at element 0"},
		"data":     {slices.Concat(fits()[:36], []Tensor{{"fc.bias", []int{10}, nil}}), `tensor "fc.bias" of shape [10] has 0 elements`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			network := residual{blocks: 1}.network()
			_, err := Assign(network, test.tensors)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
			for _, p := range network.Params() {
				require.Zero(t, slices.Max(p.Data()), "%s is assigned", p.Name)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	network := residual{blocks: 1}.network()
	tensors := numbered(network, func(s string) string { return "module." + s })[2:]
	tensors = append(tensors[:len(tensors)-1], Tensor{"module.linear.bias", []int{100}, nil}, Tensor{"module.bn1.moment", nil, nil}, Tensor{"auxiliary", nil, nil})
	report, err := Assign(network, tensors)
	require.Error(t, err)
	require.False(t, report.Complete())
	require.Equal(t, `34 of 37 parameters matched
missing in the checkpoint: conv1.weight, bn1.weight
another shape: fc.bias is [10], the checkpoint's module.linear.bias is [100]
no place in the network's layer: module.bn1.moment
unused in the checkpoint: auxiliary
`, report.String())
}
