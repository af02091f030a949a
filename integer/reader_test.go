package integer_test

import (
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"os"
	"testing"

	"github.com/goqat/goqat/datasets/mnist"
	"github.com/goqat/goqat/integer"
	"github.com/stretchr/testify/require"
)

// A second reader and executor of .goq files, written from the package comment alone: it uses nothing of
// the package, no packed loops, no folding, and exact rationals where the engine shifts.

type goqLayer struct {
	dimensions []int
	codes      []int
	tables     [][]int
}

type goqRequantizer struct {
	zero, min, max int64
	shift          []uint
	bias           []int64
	multiplier     [][]int64
	negative       *goqRequantizer
}

type goqNode struct {
	kind        int
	inputs      []int
	layer       int
	numbers     []int // geometry or window
	bounds      []int64
	values      []int64
	requantizer goqRequantizer
}

type goqFile struct {
	version        int
	classes        int
	channels, h, w int
	layers         []goqLayer
	zero           int
	pixels         [][]int
	nodes          []goqNode
	payload        []byte
	at             int
}

type goqValue struct {
	c, h, w, zero int
	x             []int64
}

func (f *goqFile) bytes(n int) []byte {
	f.at += n
	return f.payload[f.at-n : f.at]
}
func (f *goqFile) u8() int     { return int(f.bytes(1)[0]) }
func (f *goqFile) s8() int     { return int(int8(f.bytes(1)[0])) }
func (f *goqFile) u16() int    { return int(binary.LittleEndian.Uint16(f.bytes(2))) }
func (f *goqFile) u32() int    { return int(binary.LittleEndian.Uint32(f.bytes(4))) }
func (f *goqFile) s32() int64  { return int64(int32(f.u32())) }
func (f *goqFile) s64() int64  { return int64(binary.LittleEndian.Uint64(f.bytes(8))) }
func (f *goqFile) skipString() { f.bytes(f.u16()) }

// readGoq reads a whole file.
func readGoq(t *testing.T, file []byte) *goqFile {
	require.Equal(t, "GOQ\x00", string(file[:4]))
	f := &goqFile{version: int(binary.LittleEndian.Uint32(file[4:])), payload: file[48:]}
	require.Contains(t, []int{1, 2}, f.version)
	require.EqualValues(t, len(f.payload), binary.LittleEndian.Uint64(file[8:]))
	sum := sha256.Sum256(f.payload)
	require.Equal(t, sum[:], file[16:48])
	for _, section := range []struct {
		name string
		read func()
	}{
		{"META", func() {
			for n := f.u32(); n > 0; n-- {
				f.skipString()
				f.bytes(f.u32())
			}
		}},
		{"CLAS", func() {
			f.classes = f.u16()
			for range f.classes {
				f.skipString()
			}
		}},
		{"INPT", func() { f.channels, f.h, f.w = f.u32(), f.u32(), f.u32(); f.bytes(8) }},
		{"LAYR", func() {
			for n := f.u16(); n > 0; n-- {
				f.layers = append(f.layers, f.layer())
			}
		}},
		{"PROG", f.program},
	} {
		require.Equal(t, section.name, string(f.bytes(4)))
		end := f.u32()
		end += f.at
		section.read()
		require.Equal(t, end, f.at)
	}
	require.Len(t, f.payload, f.at)
	return f
}

func (f *goqFile) layer() (l goqLayer) {
	f.skipString()
	elements := 1
	for n := f.u8(); n > 0; n-- {
		l.dimensions = append(l.dimensions, f.u32())
		elements *= l.dimensions[len(l.dimensions)-1]
	}
	bits, vector := f.u8(), 1
	if f.version == 2 {
		vector = f.u32()
	}
	packed := f.bytes((elements/vector*bits + 7) / 8)
	var codes []int
	for i := range elements / vector {
		code := 0
		for k := range bits {
			bit := i*bits + k
			code |= int(packed[bit/8]>>(bit%8)&1) << k
		}
		codes = append(codes, code)
	}
	for i := range elements {
		l.codes = append(l.codes, codes[i/vector]*vector+i%vector)
	}
	for n := f.u8(); n > 0; n-- {
		var table []int
		for range vector << bits {
			table = append(table, f.s8())
		}
		l.tables = append(l.tables, table)
		form := f.u8()
		scales, size := l.dimensions[0], 8
		if form&1 != 0 {
			scales = 1
		}
		if form&2 != 0 {
			size = 4
		}
		f.bytes(scales * size)
	}
	if f.u8() == 1 {
		f.bytes(4 * l.dimensions[0])
	}
	return l
}

func (f *goqFile) program() {
	f.zero = int(f.s32())
	signed := f.u8() == 1
	for range f.channels {
		var table []int
		for range 256 {
			if signed {
				table = append(table, f.s8())
			} else {
				table = append(table, f.u8())
			}
		}
		f.pixels = append(f.pixels, table)
	}
	for n := f.u16(); n > 0; n-- {
		f.nodes = append(f.nodes, f.node())
	}
}

func (f *goqFile) node() goqNode {
	n := goqNode{kind: f.u8()}
	f.skipString()
	for k := f.u8(); k > 0; k-- {
		n.inputs = append(n.inputs, f.u16())
	}
	if n.kind == 1 || n.kind == 2 {
		n.layer = f.u16()
	}
	for range map[int]int{1: 7, 3: 8, 4: 8, 8: 3}[n.kind] {
		n.numbers = append(n.numbers, f.u32())
	}
	if n.kind == 1 || n.kind == 2 || n.kind == 6 || n.kind == 7 {
		n.requantizer = f.requantizer()
	}
	if n.kind == 9 {
		for k := f.u8(); k > 0; k-- {
			n.bounds = append(n.bounds, f.s32())
		}
		for signed := f.u8() == 1; len(n.values) <= len(n.bounds); {
			if signed {
				n.values = append(n.values, int64(f.s8()))
			} else {
				n.values = append(n.values, int64(f.u8()))
			}
		}
	}
	return n
}

func (f *goqFile) requantizer() (r goqRequantizer) {
	planes, negative, entries := f.u8(), f.u8(), f.u32()
	r.zero, r.min, r.max = f.s32(), f.s32(), f.s32()
	for range entries {
		r.shift = append(r.shift, uint(f.u8()))
	}
	f.sums(&r, planes, entries)
	if negative == 1 {
		r.negative = &goqRequantizer{}
		f.sums(r.negative, planes, entries)
	}
	return r
}

func (f *goqFile) sums(r *goqRequantizer, planes, entries int) {
	for range entries {
		r.bias = append(r.bias, f.s64())
	}
	for range planes {
		var multiplier []int64
		for range entries {
			multiplier = append(multiplier, f.s32())
		}
		r.multiplier = append(r.multiplier, multiplier)
	}
}

func (r *goqRequantizer) sum(c int, acc []int64) *big.Int {
	sum := big.NewInt(r.bias[c])
	for p, a := range acc {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(a), big.NewInt(r.multiplier[p][c])))
	}
	return sum
}

// apply is the formula in rationals.
func (r *goqRequantizer) apply(c int, acc []int64) int64 {
	if len(r.shift) == 1 {
		c = 0
	}
	sum := r.sum(c, acc)
	if sum.Sign() < 0 && r.negative != nil {
		sum = r.negative.sum(c, acc)
	}
	out := roundEven(new(big.Rat).SetFrac(sum, new(big.Int).Lsh(big.NewInt(1), r.shift[c])))
	out.Add(out, big.NewInt(r.zero))
	if out.Cmp(big.NewInt(r.min)) < 0 {
		return r.min
	}
	if out.Cmp(big.NewInt(r.max)) > 0 {
		return r.max
	}
	return out.Int64()
}

// run returns the logits of one image.
func (f *goqFile) run(image []byte) []int64 {
	first := goqValue{f.channels, f.h, f.w, f.zero, nil}
	for i, pixel := range image {
		first.x = append(first.x, int64(f.pixels[i/(f.h*f.w)][pixel]))
	}
	values := []goqValue{first}
	for _, n := range f.nodes {
		in := values[n.inputs[0]]
		switch n.kind {
		case 1:
			values = append(values, f.conv(n, values))
		case 2:
			n.numbers = []int{1, 1, 0, 0, 0, 0, 1}
			values = append(values, f.conv(n, values))
		case 3, 4:
			values = append(values, goqPool(n, in))
		case 5:
			values = append(values, goqValue{len(in.x), 1, 1, in.zero, in.x})
		case 8:
			values = append(values, goqSample(n, in))
		case 9:
			out := goqValue{in.c, in.h, in.w, int(n.step(int64(in.zero))), nil}
			if len(n.values) == 2 && n.values[0]+n.values[1] == 0 {
				out.zero = 0
			}
			for _, x := range in.x {
				out.x = append(out.x, n.step(x))
			}
			values = append(values, out)
		default:
			out := goqValue{in.c, in.h, in.w, int(n.requantizer.zero), nil}
			for i := range in.x {
				var acc []int64
				for _, input := range n.inputs {
					acc = append(acc, values[input].x[i])
				}
				out.x = append(out.x, n.requantizer.apply(i/(in.h*in.w), acc))
			}
			values = append(values, out)
		}
	}
	return values[len(values)-1].x
}

func (n *goqNode) step(x int64) int64 {
	below := 0
	for _, bound := range n.bounds {
		if bound < x {
			below++
		}
	}
	return n.values[below]
}

func (f *goqFile) conv(n goqNode, values []goqValue) goqValue {
	l, in := f.layers[n.layer], values[n.inputs[0]]
	d := append(append([]int{}, l.dimensions...), 1, 1)
	sy, sx, top, left, bottom, right, groups := n.numbers[0], n.numbers[1], n.numbers[2], n.numbers[3], n.numbers[4], n.numbers[5], n.numbers[6]
	out := goqValue{d[0], (in.h+top+bottom-d[2])/sy + 1, (in.w+left+right-d[3])/sx + 1, int(n.requantizer.zero), nil}
	for o := range out.c {
		for at := range out.h * out.w {
			acc := make([]int64, len(n.inputs)*len(l.tables))
			for tap := range d[1] * d[2] * d[3] {
				i, ky, kx := o/(d[0]/groups)*d[1]+tap/(d[2]*d[3]), tap/d[3]%d[2], tap%d[3]
				y, c := at/out.w*sy+ky-top, at%out.w*sx+kx-left
				for k, input := range n.inputs {
					x := int64(values[input].zero)
					if y >= 0 && y < in.h && c >= 0 && c < in.w {
						x = values[input].x[(i*in.h+y)*in.w+c]
					}
					for p, table := range l.tables {
						acc[k*len(l.tables)+p] += x * int64(table[l.codes[o*d[1]*d[2]*d[3]+tap]])
					}
				}
			}
			out.x = append(out.x, n.requantizer.apply(o, acc))
		}
	}
	return out
}

func goqPool(n goqNode, in goqValue) goqValue {
	kh, kw, sy, sx, top, left, bottom, right := n.numbers[0], n.numbers[1], n.numbers[2], n.numbers[3], n.numbers[4], n.numbers[5], n.numbers[6], n.numbers[7]
	out := goqValue{in.c, (in.h+top+bottom-kh)/sy + 1, (in.w+left+right-kw)/sx + 1, in.zero, nil}
	for i := range out.c * out.h * out.w {
		sum, largest := int64(0), int64(-1)<<40
		for k := range kh * kw {
			y, x := i/out.w%out.h*sy+k/kw-top, i%out.w*sx+k%kw-left
			if y < 0 || y >= in.h || x < 0 || x >= in.w {
				continue
			}
			v := in.x[(i/(out.h*out.w)*in.h+y)*in.w+x]
			sum, largest = sum+v-int64(in.zero), max(largest, v)
		}
		if n.kind == 4 {
			largest = sum
		}
		out.x = append(out.x, largest)
	}
	if n.kind == 4 {
		out.zero = 0
	}
	return out
}

func goqSample(n goqNode, in goqValue) goqValue {
	stride, before, after := n.numbers[0], n.numbers[1], n.numbers[2]
	out := goqValue{before + in.c + after, (in.h-1)/stride + 1, (in.w-1)/stride + 1, in.zero, nil}
	for c := -before; c < in.c+after; c++ {
		for at := range out.h * out.w {
			x := int64(in.zero)
			if c >= 0 && c < in.c {
				x = in.x[(c*in.h+at/out.w*stride)*in.w+at%out.w*stride]
			}
			out.x = append(out.x, x)
		}
	}
	return out
}

func TestSecondReaderGivesTheSameLogits(t *testing.T) {
	for name := range networks {
		for seed := range uint64(4) {
			count := 3
			if name == "lenet" {
				count = 1
			}
			model, images := build(t, name, 41+seed, count)
			want, err := model.Program.Run(images)
			require.NoError(t, err)
			file := readGoq(t, encode(t, model))
			size := model.Input.Len()
			for i := range count {
				logits := file.run(images[i*size : (i+1)*size])
				require.Len(t, logits, file.classes)
				for class, logit := range logits {
					require.EqualValues(t, logit, want[i*file.classes+class], "%s, image %d, class %d", name, i, class)
				}
			}
		}
	}
}

// TestSecondReaderRunsLeNet runs a LeNet-5 that `goqat train` made on the first 100 test images of MNIST.
func TestSecondReaderRunsLeNet(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/lenet5.goq")
	require.NoError(t, err)
	model, err := integer.Decode(data)
	require.NoError(t, err)
	digits, err := mnist.Load("")
	require.NoError(t, err)
	images := digits.Test.Head(100)
	want, err := model.Program.Run(images.Pixels[:images.Len()*model.Input.Len()])
	require.NoError(t, err)
	file := readGoq(t, data)
	for i := range images.Len() {
		for class, logit := range file.run(images.Image(i)) {
			require.EqualValues(t, logit, want[i*file.classes+class], "image %d, class %d", i, class)
		}
	}
}
