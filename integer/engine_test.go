package integer_test

import (
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// sketch draws a random program, node by node.
type sketch struct {
	*rand.Rand
	program integer.Program // of the nodes that are kept
	shapes  []integer.Shape // of its values
}

func newSketch(random *rand.Rand) *sketch {
	s := &sketch{Rand: random}
	low := -128 * s.IntN(2)
	s.program.Input = integer.Shape{Channels: s.upTo(40), Height: s.upTo(9), Width: s.upTo(15)}
	s.program.Zero = int32(low + s.IntN(256))
	s.program.Pixels = make([][256]int16, s.program.Input.Channels)
	for c := range s.program.Pixels {
		for pixel := range 256 {
			s.program.Pixels[c][pixel] = int16(low + s.IntN(256))
		}
	}
	s.shapes = []integer.Shape{s.program.Input}
	return s
}

// upTo is a number from 1 to n.
func (s *sketch) upTo(n int) int { return 1 + s.IntN(n) }

// with returns the program with a node more and its value as logits, or nil if that is not valid.
func (s *sketch) with(n integer.Node, w *integer.IntegerWeights) (*integer.Program, integer.Shape) {
	var in []integer.Shape
	for _, input := range n.Inputs {
		in = append(in, s.shapes[input])
	}
	shape, err := integer.OutputShape(&n, in, w)
	if err != nil {
		return nil, shape
	}
	p := &integer.Program{Input: s.program.Input, Pixels: s.program.Pixels, Zero: s.program.Zero, Classes: shape.Len(), Weights: slices.Clip(s.program.Weights)}
	if w != nil {
		p.Weights = append(p.Weights, *w)
	}
	logits := wide(1)
	logits.Min, logits.Max = -1<<20, 1<<20
	p.Nodes = append(slices.Clip(s.program.Nodes), n, integer.Node{Kind: integer.Requantize, Inputs: []int{len(s.shapes)}, Requantizer: logits})
	if p.Validate() != nil {
		return nil, shape
	}
	return p, shape
}

// draw adds a node if it fits and reports what program that makes.
func (s *sketch) draw() *integer.Program {
	input := s.IntN(len(s.shapes))
	if s.IntN(2) == 0 {
		input = len(s.shapes) - 1
	}
	n := integer.Node{Kind: integer.Kind(s.upTo(9)), Inputs: []int{input}}
	w := s.fill(&n, s.shapes[input])
	p, shape := s.with(n, w)
	if p == nil || shape.Len() > 5000 {
		return nil
	}
	s.program.Nodes = append(s.program.Nodes, n)
	if w != nil {
		s.program.Weights = append(s.program.Weights, *w)
	}
	s.shapes = append(s.shapes, shape)
	return p
}

// fill draws what a node of its kind has, for an input of shape x.
func (s *sketch) fill(n *integer.Node, x integer.Shape) (w *integer.IntegerWeights) {
	switch n.Kind {
	case integer.Conv:
		n.Geometry = integer.ConvGeometry{StrideHeight: s.upTo(3), StrideWidth: s.upTo(3), Groups: 1}
		if s.IntN(2) == 0 {
			for n.Geometry.Groups = s.upTo(x.Channels); x.Channels%n.Geometry.Groups != 0; {
				n.Geometry.Groups = s.upTo(x.Channels)
			}
		}
		height, width := s.upTo(4), s.upTo(4)
		n.Geometry.PadTop, n.Geometry.PadBottom, n.Geometry.PadLeft, n.Geometry.PadRight = s.IntN(height), s.IntN(height), s.IntN(width), s.IntN(width)
		w = s.weights(n.Geometry.Groups*s.upTo(max(1, 70/n.Geometry.Groups)), x.Channels/n.Geometry.Groups, height, width)
	case integer.Linear:
		w = s.weights(s.upTo(70), x.Len())
	case integer.MaxPool, integer.AvgPool:
		height, width := s.upTo(4), s.upTo(4)
		n.Window = integer.Window{Height: height, Width: width, StrideHeight: s.upTo(3), StrideWidth: s.upTo(3),
			PadTop: s.IntN(height), PadBottom: s.IntN(height), PadLeft: s.IntN(width), PadRight: s.IntN(width)}
	case integer.Sample:
		n.Sampling = integer.Sampling{Stride: s.upTo(3), Before: s.IntN(5), After: s.IntN(5)}
	case integer.Add:
		s.second(n, x)
	case integer.Staircase:
		n.Steps = s.steps()
	}
	switch {
	case w != nil:
		if s.IntN(2) == 0 {
			s.second(n, x)
		}
		n.Weights = len(s.program.Weights)
		n.Requantizer = s.requantizer(len(n.Inputs)*len(w.Tables), w.Shape[0], 9)
	case n.Kind == integer.Requantize || n.Kind == integer.Add:
		entries := x.Channels
		if s.IntN(2) == 0 {
			entries = 1
		}
		n.Requantizer = s.requantizer(len(n.Inputs), entries, 1)
	}
	return w
}

// second gives a node a second input of the same shape as the first.
func (s *sketch) second(n *integer.Node, x integer.Shape) {
	for other, shape := range s.shapes {
		if shape == x && (len(n.Inputs) == 1 || s.IntN(2) == 0) {
			n.Inputs = []int{n.Inputs[0], other}
		}
	}
}

// steps draws a staircase for codes or for wide numbers.
func (s *sketch) steps() *integer.Steps {
	steps := &integer.Steps{}
	low, reach := -128*s.IntN(2), int64(1)<<s.upTo(31)
	for range s.IntN(min(256, 1<<s.IntN(9))) {
		steps.Bounds = append(steps.Bounds, int32(s.Int64N(2*reach)-reach))
	}
	slices.Sort(steps.Bounds)
	for range len(steps.Bounds) + 1 {
		steps.Values = append(steps.Values, int16(low+s.IntN(256)))
	}
	return steps
}

func (s *sketch) weights(shape ...int) *integer.IntegerWeights {
	elements := 1
	for _, d := range shape {
		elements *= d
	}
	planes := s.upTo(3)
	if s.IntN(8) == 0 {
		planes = s.upTo(8)
	}
	w := &integer.IntegerWeights{Shape: shape, Codes: make([]uint16, elements), Tables: make([][]int8, planes)}
	for i := range w.Codes {
		w.Codes[i] = uint16(s.IntN(16))
	}
	for p := range w.Tables {
		for range 16 {
			w.Tables[p] = append(w.Tables[p], int8(s.IntN(256)-128))
		}
	}
	return w
}

// requantizer draws one that divides by about 2^bits, to codes of either sign or wide, some with numbers for negative sums.
func (s *sketch) requantizer(planes, entries, bits int) *integer.Requantizer {
	r := &integer.Requantizer{Min: -math.MaxInt32, Max: math.MaxInt32}
	if s.IntN(3) > 0 {
		r.Min = int32(-128 * s.IntN(2))
		r.Max = r.Min + int32(s.upTo(255))
		r.Zero = r.Min + s.Int32N(r.Max-r.Min+1)
	}
	branch := func() (multiplier [][]int32, bias []int64) {
		multiplier = make([][]int32, planes)
		for range entries {
			bias = append(bias, s.Int64N(1<<34)-1<<33)
			for p := range multiplier {
				multiplier[p] = append(multiplier[p], s.Int32N(1<<21)-1<<20)
			}
		}
		return multiplier, bias
	}
	r.Multiplier, r.Bias = branch()
	for range entries {
		r.Shift = append(r.Shift, uint8(18+bits+s.IntN(4)))
	}
	if s.IntN(4) == 0 {
		r.Negative = &integer.Branch{}
		r.Negative.Multiplier, r.Negative.Bias = branch()
	}
	return r
}

// TestEnginesAgree compares the fast engine with the plain one on random programs of every kind of node.
func TestEnginesAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(51, 0))
	kinds := map[integer.Kind]int{}
	double := map[integer.Kind]int{} // of two inputs
	for i := range 150 {
		s := newSketch(random)
		var p *integer.Program
		for range 14 {
			if drawn := s.draw(); drawn != nil {
				p = drawn
			}
		}
		if p == nil {
			continue
		}
		for _, n := range p.Nodes {
			kinds[n.Kind]++
			if len(n.Inputs) == 2 {
				double[n.Kind]++
			}
		}
		size := p.Input.Len()
		images := make([]uint8, 3*size)
		for k := range images {
			images[k] = uint8(s.UintN(256))
		}
		got, err := p.Run(images)
		require.NoError(t, err)
		single, err := p.Run(images[:size])
		require.NoError(t, err)
		require.Equal(t, got[:p.Classes], single)
		for image := range slices.Chunk(images, size) {
			trace, err := p.Trace(image)
			require.NoError(t, err)
			require.Equal(t, trace[len(trace)-1].Values, got[:p.Classes], "program %d: %+v", i, p.Nodes)
			got = got[p.Classes:]
		}
	}
	for kind := integer.Conv; kind <= integer.Staircase; kind++ {
		require.Greater(t, kinds[kind], 30, "%v", kind)
	}
	require.Greater(t, double[integer.Conv], 15)
	require.Greater(t, double[integer.Linear], 15)
}

// The engines must agree on slower machines too.
func TestEnginesAgreeOnEveryPath(t *testing.T) {
	if os.Getenv("GOQAT_SIMD") != "" {
		t.Skip("held down to one path")
	}
	for _, path := range []string{"avx2", "portable"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			command := exec.Command(os.Args[0], "-test.run=^TestEnginesAgree$|^TestRunEqualsTrace|^TestCommittedFile$", "-test.v")
			command.Env = append(os.Environ(), "GOQAT_SIMD="+path)
			out, err := command.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "--- PASS: TestEnginesAgree ")
		})
	}
}

// What Cost says of memory must hold for every network, also where a layer has two inputs.
func TestCostBoundsWorkingMemory(t *testing.T) {
	for name := range networks {
		model, _ := build(t, name, 53, 0)
		cost, err := model.Program.Cost()
		require.NoError(t, err)
		require.GreaterOrEqual(t, cost.Weights, int64(integer.PackedBytes(model.Program)), name)
		require.GreaterOrEqual(t, 4*cost.Elements, int64(integer.WorkerBytes(model.Program)), name)
	}
}

// A layer whose groups are small takes sixteen times its weights; what Cost says must hold for it.
func TestCostBoundsPackedWeights(t *testing.T) {
	m := newMirror(t, 52, integer.Shape{Channels: 48, Height: 3, Width: 3})
	x := m.conv("depthwise", m.image(unsigned(8, 0.1)), m.weights(8, 1, 48, 1, 3, 3), nil, integer.ConvGeometry{Groups: 48})
	model, _ := m.output(m.linear("last", m.quantize(m.flatten(x), unsigned(8, 0.1)), m.weights(8, 2, 10, 48), nil))
	cost, err := model.Program.Cost()
	require.NoError(t, err)
	require.GreaterOrEqual(t, cost.Weights, int64(integer.PackedBytes(model.Program)))
	require.Less(t, cost.Weights, int64(25000))
}
