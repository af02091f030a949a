package integer_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// small returns a valid program: image of 1x2x2 in codes 0..255, flatten, linear to two logits.
func small() *integer.Program {
	p := &integer.Program{
		Input: integer.Shape{Channels: 1, Height: 2, Width: 2}, Pixels: make([][256]int16, 1), Zero: 3, Classes: 2,
		Weights: []integer.IntegerWeights{
			{Shape: []int{2, 4}, Codes: []uint16{0, 1, 2, 3, 3, 2, 1, 0}, Tables: [][]int8{{0, 1, -2, -1}}},
			{Shape: []int{1, 1, 2, 2}, Codes: []uint16{1, 1, 1, 1}, Tables: [][]int8{{0, 1, -2, -1}}},
		},
		Nodes: []integer.Node{
			{Kind: integer.Flatten, Name: "flatten", Inputs: []int{0}},
			{Kind: integer.Linear, Name: "fc", Inputs: []int{1}, Weights: 0, Requantizer: wide(2)},
		},
	}
	for pixel := range p.Pixels[0] {
		p.Pixels[0][pixel] = int16(pixel)
	}
	return p
}

// wide returns a requantizer that passes one accumulator on.
func wide(entries int) *integer.Requantizer {
	r := &integer.Requantizer{Bias: make([]int64, entries), Shift: make([]uint8, entries), Multiplier: [][]int32{make([]int32, entries)}, Min: math.MinInt32, Max: math.MaxInt32}
	for o := range entries {
		r.Multiplier[0][o] = 1
	}
	return r
}

// windowed makes the program a single pooling node.
func windowed(p *integer.Program, kind integer.Kind, w integer.Window) {
	p.Nodes = []integer.Node{{Kind: kind, Name: "pool", Inputs: []int{0}, Window: w}}
}

func TestProgramValidate(t *testing.T) {
	require.NoError(t, small().Validate())
	for name, c := range map[string]struct {
		change func(p *integer.Program)
		want   string
	}{
		"no channels":    {func(p *integer.Program) { p.Input.Channels = 0 }, "input of shape 0x2x2"},
		"tables":         {func(p *integer.Program) { p.Pixels = nil }, "with 0 pixel tables"},
		"large image":    {func(p *integer.Program) { p.Input.Height, p.Input.Width = 1<<20, 1<<20 }, "less than 2^31"},
		"pixel codes":    {func(p *integer.Program) { p.Pixels[0][7] = -1 }, "cover [-1, 255]"},
		"zero point":     {func(p *integer.Program) { p.Zero = 256 }, "cover [0, 256]"},
		"weights":        {func(p *integer.Program) { p.Weights[0].Codes[0] = 9 }, "weights 0: weight code 9"},
		"no nodes":       {func(p *integer.Program) { p.Nodes = nil }, "0 nodes end in shape 1x2x2"},
		"classes":        {func(p *integer.Program) { p.Classes = 3 }, "end in shape 2x1x1 for 3 classes"},
		"unknown kind":   {func(p *integer.Program) { p.Nodes[0].Kind = 10 }, `node "flatten": node of kind 10`},
		"inputs":         {func(p *integer.Program) { p.Nodes[1].Kind = integer.Add }, `node "fc": 1 inputs of a node of add: want at least 2 and at most 2`},
		"no inputs":      {func(p *integer.Program) { p.Nodes[0].Inputs = nil }, `node "flatten": 0 inputs of a node of flatten: want at least 1`},
		"three inputs":   {func(p *integer.Program) { p.Nodes[1].Inputs = []int{1, 1, 1} }, "3 inputs of a node of linear: want at least 1 and at most 2"},
		"unequal inputs": {func(p *integer.Program) { p.Nodes[1].Inputs = []int{1, 0} }, "linear of shapes 4x1x1 and 1x2x2: want equal ones"},
		"one for two":    {func(p *integer.Program) { p.Nodes[1].Inputs = []int{1, 1} }, "requantizer of 1 planes for 2 accumulators"},
		"wide second":    {wideSecond, `node "fc": channel 0: input covers [-2147483648, 2147483647]`},
		"no steps":       {func(p *integer.Program) { stairs(p, nil) }, `node "stairs": staircase without 1 to 256 values`},
		"no values":      {func(p *integer.Program) { stairs(p, &integer.Steps{}) }, "staircase without 1 to 256 values"},
		"many values": {func(p *integer.Program) {
			stairs(p, &integer.Steps{Bounds: make([]int32, 256), Values: make([]int16, 257)})
		}, "staircase without 1 to 256 values"},
		"missing bounds":    {func(p *integer.Program) { stairs(p, &integer.Steps{Values: []int16{0, 1}}) }, "and a bound less"},
		"descending bounds": {func(p *integer.Program) { stairs(p, &integer.Steps{Bounds: []int32{2, 1}, Values: []int16{0, 1, 2}}) }, "bounds that descend"},
		"values of no byte": {func(p *integer.Program) { stairs(p, &integer.Steps{Bounds: []int32{1}, Values: []int16{-1, 128}}) }, "staircase values cover [-1, 128]"},
		"zero of stairs":    {func(p *integer.Program) { stairs(p, &integer.Steps{Bounds: []int32{1}, Values: []int16{0, 1}}) }, "around 1: want"},
		"own output":        {func(p *integer.Program) { p.Nodes[1].Inputs[0] = 2 }, "input 2: want the number of an earlier value, 0 to 1"},
		"negative input":    {func(p *integer.Program) { p.Nodes[1].Inputs[0] = -1 }, "input -1"},
		"weights index":     {func(p *integer.Program) { p.Nodes[1].Weights = 2 }, "weights 2 of 2"},
		"weights of conv":   {func(p *integer.Program) { p.Nodes[1].Weights = 1 }, "want [O][I] and Ix1x1"},
		"not flat":          {func(p *integer.Program) { p.Nodes[1].Inputs[0] = 0 }, "flatten it first"},
		"conv of matrix":    {func(p *integer.Program) { p.Nodes[1].Kind = integer.Conv }, "want [O][I][KH][KW]"},
		"no requantizer":    {func(p *integer.Program) { p.Nodes[1].Requantizer = nil }, "no requantizer"},
		"one for all":       {func(p *integer.Program) { p.Nodes[1].Requantizer = wide(1) }, "1 entries for 2 channels"},
		"shifts":            {func(p *integer.Program) { p.Nodes[1].Requantizer.Shift = nil }, "0 shifts: want 2"},
		"multipliers":       {func(p *integer.Program) { p.Nodes[1].Requantizer.Multiplier[0] = nil }, "0 multipliers: want 2"},
		"planes":            {func(p *integer.Program) { p.Nodes[1].Requantizer.Multiplier = nil }, "0 planes for 1 accumulators"},
		"zero outside":      {func(p *integer.Program) { p.Nodes[1].Requantizer.Min = 1 }, "want the zero point inside"},
		"large shift":       {func(p *integer.Program) { p.Nodes[1].Requantizer.Shift[1] = 63 }, "channel 1: shift 63"},
		"lowest multiplier": {func(p *integer.Program) { p.Nodes[1].Requantizer.Multiplier[0][1] = math.MinInt32 }, "multiplier -2^31"},
		"high bias":         {func(p *integer.Program) { p.Nodes[1].Requantizer.Bias[0] = 1<<62 - 255 }, "bias 4611686018427387649 takes the sum beyond 2^62"},
		"low bias":          {func(p *integer.Program) { p.Nodes[1].Requantizer.Bias[0] = -1<<62 + 765 }, "takes the sum beyond 2^62"},
		"lowest bias":       {func(p *integer.Program) { p.Nodes[1].Requantizer.Bias[0] = math.MinInt64 }, "takes the sum beyond 2^62"},
		"highest bias":      {func(p *integer.Program) { p.Nodes[1].Requantizer.Bias[0] = math.MaxInt64 }, "takes the sum beyond 2^62"},
		"large logits":      {func(p *integer.Program) { p.Nodes[1].Requantizer.Bias[0] = 1 << 24 }, "want magnitudes below 2^24"},
		"logits zero point": {func(p *integer.Program) { p.Nodes[1].Requantizer.Zero = 1 }, "around 1: want"},
		"empty window":      {func(p *integer.Program) { windowed(p, integer.MaxPool, integer.Window{}) }, "want positive sizes"},
		"window in padding": {func(p *integer.Program) {
			windowed(p, integer.AvgPool, integer.Window{Height: 1, Width: 1, StrideHeight: 1, StrideWidth: 1, PadTop: 1})
		}, "less than the window"},
		"padding overflows": {func(p *integer.Program) {
			windowed(p, integer.MaxPool, integer.Window{Height: math.MaxInt, Width: 1, StrideHeight: 1, StrideWidth: 1, PadTop: math.MaxInt - 1})
		}, "padded input"},
		"no sampling":       {func(p *integer.Program) { sampled(p, integer.Sampling{}) }, `node "sample": sampling with stride 0`},
		"negative sampling": {func(p *integer.Program) { sampled(p, integer.Sampling{Stride: 1, Before: 1, After: -1}) }, "with stride 1 and 1 and -1 channels"},
		"many channels": {func(p *integer.Program) {
			sampled(p, integer.Sampling{Stride: 1, Before: math.MaxInt, After: math.MaxInt})
		}, "less than 2^31"},
		"large sampling":             {func(p *integer.Program) { sampled(p, integer.Sampling{Stride: 1, Before: 1<<31 - 2}) }, "output of 2147483647x2x2: want less than 2^31"},
		"sampled zeros":              {sampledZeros, `node "last": channel 0: bias`},
		"negative biases":            {func(p *integer.Program) { negative(p).Bias = nil }, "0 biases for negative sums: want 2"},
		"negative planes":            {func(p *integer.Program) { negative(p).Multiplier = nil }, "0 planes for negative sums: want 1"},
		"negative multipliers":       {func(p *integer.Program) { negative(p).Multiplier[0] = nil }, "0 multipliers: want 2"},
		"lowest negative multiplier": {func(p *integer.Program) { negative(p).Multiplier[0][1] = math.MinInt32 }, "channel 1: negative sums: multiplier -2^31"},
		"low negative bias":          {func(p *integer.Program) { negative(p).Bias[0] = math.MinInt64 }, "takes the sum beyond 2^62"},
		"large negative logits":      {func(p *integer.Program) { negative(p).Bias[0] = 1 << 24 }, "want magnitudes below 2^24"},
		"add shapes": {func(p *integer.Program) {
			p.Nodes[1] = integer.Node{Kind: integer.Add, Inputs: []int{0, 1}, Requantizer: wide(1)}
		}, "add of shapes 1x2x2 and 4x1x1: want equal ones"},
		"products":          {products, "products reach 2^62"},
		"wide into conv":    {wideIntoConv, `node "second": channel 0: input covers`},
		"wide window sum":   {wideWindow, "window sums reach"},
		"wide accumulators": {longRow, "accumulators reach 2147483775"},
		"much memory":       {muchMemory, "want less than 2^31"},
		"large conv output": {largeOutput, "output of 65536x200x200: want less than 2^31"},
	} {
		p := small()
		c.change(p)
		require.ErrorContains(t, p.Validate(), c.want, name)
		_, err := p.Run(make([]uint8, 4))
		require.Error(t, err, name)
	}
}

// sampled makes the program a single sampling.
func sampled(p *integer.Program, s integer.Sampling) {
	p.Nodes = []integer.Node{{Kind: integer.Sample, Name: "sample", Inputs: []int{0}, Sampling: s}}
}

// sampledZeros has codes from 100 on, among which sampling puts zeros, and a bias that zeros alone take beyond its limit.
func sampledZeros(p *integer.Program) {
	codes, last := wide(1), wide(1)
	codes.Bias[0], codes.Min, codes.Max = 100, 0, 255
	last.Multiplier[0][0], last.Bias[0], last.Shift[0] = math.MaxInt32, -1<<62-50*math.MaxInt32, 62
	p.Nodes = []integer.Node{
		{Kind: integer.Requantize, Inputs: []int{0}, Requantizer: codes},
		{Kind: integer.Sample, Inputs: []int{1}, Sampling: integer.Sampling{Stride: 2, Before: 1}},
		{Kind: integer.Requantize, Name: "last", Inputs: []int{2}, Requantizer: last},
	}
}

// stairs makes the program a single staircase.
func stairs(p *integer.Program, s *integer.Steps) {
	p.Nodes = []integer.Node{{Kind: integer.Staircase, Name: "stairs", Inputs: []int{0}, Steps: s}}
	p.Classes = 4
}

// wideSecond lets a matrix product take in codes and numbers that are none.
func wideSecond(p *integer.Program) {
	large := wide(1)
	large.Multiplier[0][0] = math.MaxInt32
	large.Bias[0] = -1 << 38
	p.Nodes = append(p.Nodes[:1:1], integer.Node{Kind: integer.Requantize, Inputs: []int{1}, Requantizer: large}, p.Nodes[1])
	p.Nodes[2].Inputs = []int{1, 2}
}

// negative gives the last node numbers for negative sums.
func negative(p *integer.Program) *integer.Branch {
	r := wide(2)
	p.Nodes[1].Requantizer.Negative = &integer.Branch{Multiplier: r.Multiplier, Bias: r.Bias}
	return p.Nodes[1].Requantizer.Negative
}

func products(p *integer.Program) {
	r := wide(1)
	r.Multiplier[0][0] = 1 << 30
	p.Nodes = []integer.Node{
		{Kind: integer.Requantize, Inputs: []int{0}, Requantizer: r},
		{Kind: integer.Requantize, Inputs: []int{1}, Requantizer: r},
		{Kind: integer.Add, Inputs: []int{2, 2}, Requantizer: &integer.Requantizer{Bias: []int64{0}, Shift: []uint8{0}, Multiplier: [][]int32{{math.MaxInt32}, {math.MaxInt32}}, Min: -1, Max: 1}},
	}
}

func wideIntoConv(p *integer.Program) {
	first := integer.Node{Kind: integer.Conv, Name: "first", Inputs: []int{0}, Weights: 1, Requantizer: wide(1), Geometry: integer.ConvGeometry{StrideHeight: 1, StrideWidth: 1, Groups: 1, PadTop: 1, PadLeft: 1}}
	second := first
	second.Name, second.Inputs = "second", []int{1}
	p.Nodes = []integer.Node{first, second}
}

func wideWindow(p *integer.Program) {
	r := wide(1)
	r.Multiplier[0][0] = 1 << 23
	p.Nodes = []integer.Node{
		{Kind: integer.Requantize, Inputs: []int{0}, Requantizer: r},
		{Kind: integer.AvgPool, Inputs: []int{1}, Window: integer.Window{Height: 2, Width: 2, StrideHeight: 1, StrideWidth: 1}},
	}
}

// longRow has so many weights of 1 that as many codes of 255 just pass 2^31.
func longRow(p *integer.Program) {
	n := 8421505
	p.Input = integer.Shape{Channels: 1, Height: 1, Width: n}
	p.Weights = []integer.IntegerWeights{{Shape: []int{1, n}, Codes: make([]uint16, n), Tables: [][]int8{{1, 1}}}}
	p.Nodes[1].Requantizer = wide(1)
}

func muchMemory(p *integer.Program) {
	p.Input = integer.Shape{Channels: 1, Height: 1 << 15, Width: 1 << 15}
	p.Nodes = []integer.Node{{Kind: integer.Flatten, Inputs: []int{0}}, {Kind: integer.Flatten, Inputs: []int{0}}}
}

func largeOutput(p *integer.Program) {
	p.Input = integer.Shape{Channels: 1, Height: 200, Width: 200}
	p.Weights[1] = integer.IntegerWeights{Shape: []int{65536, 1, 1, 1}, Codes: make([]uint16, 65536), Tables: [][]int8{{0, 1}}}
	p.Nodes = []integer.Node{{Kind: integer.Conv, Inputs: []int{0}, Weights: 1, Requantizer: wide(1), Geometry: integer.ConvGeometry{StrideHeight: 1, StrideWidth: 1, Groups: 1}}}
}

func TestKindString(t *testing.T) {
	require.Equal(t, "conv", integer.Conv.String())
	require.Equal(t, "add", integer.Add.String())
	require.Equal(t, "sample", integer.Sample.String())
	require.Equal(t, "staircase", integer.Staircase.String())
	require.Equal(t, "kind 0", integer.Kind(0).String())
}

// What a staircase never gives for its input is left out of account, and its zero point is what it makes of its input's.
func TestStaircaseRange(t *testing.T) {
	p := small()
	p.Classes = 4
	p.Nodes = []integer.Node{
		{Kind: integer.Staircase, Inputs: []int{0}, Steps: &integer.Steps{Bounds: []int32{-1, 2, 255}, Values: []int16{-128, 5, 0, 127}}},
		{Kind: integer.Flatten, Inputs: []int{1}},
		{Kind: integer.Requantize, Inputs: []int{2}, Requantizer: wide(1)},
	}
	p.Nodes[2].Requantizer.Multiplier[0][0] = 1<<24/5 + 1 // five of these are too large for a logit, by one
	require.ErrorContains(t, p.Validate(), "logits cover [0, 16777220] around 0")
	p = small()
	p.Nodes = []integer.Node{{Kind: integer.Staircase, Inputs: []int{0}, Steps: &integer.Steps{Bounds: []int32{2, 2, 200}, Values: []int16{-7, 9, 0, 3}}}}
	p.Classes = 4
	logits, err := p.Run([]uint8{2, 3, 200, 201})
	require.NoError(t, err)
	require.Equal(t, []int32{-7, 0, 0, 3}, logits)
}

// A sum at the very edge of what is proved must come out right.
func TestRequantizationAtItsLimits(t *testing.T) {
	p := small()
	p.Nodes[1].Requantizer = &integer.Requantizer{
		Multiplier: [][]int32{{math.MaxInt32, math.MaxInt32}}, Bias: []int64{1<<62 - 1 - 255*math.MaxInt32, -1<<62 + 1 + 765*math.MaxInt32},
		Shift: []uint8{62, 40}, Min: -1 << 23, Max: 1 << 23,
	}
	require.NoError(t, p.Validate())
	logits, err := p.Run([]uint8{0, 255, 0, 0})
	require.NoError(t, err)
	// Channel 0: 2^62 - 1, hence 1. Channel 1: weights -1 -2 1 0, so -510 where -765 would be the least: -2^62 + 255 * 2^31, hence -2^22.
	require.Equal(t, []int32{1, -1 << 22}, logits)
}
