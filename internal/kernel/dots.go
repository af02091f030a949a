package kernel

import "slices"

// The arithmetic of the integer engine. Activations of one image lie as [height][width][channels] in unsigned bytes, the
// channels of a pixel side by side. A vector is 16 outputs; each of its lanes multiplies four neighbouring bytes by four
// weights and adds up the products in int32, which wraps around. Integer sums have no order, so every path gives the same.

// DotPixels is the most pixels that one call of [ByteWeights.Dots] does.
const DotPixels = 12

// dotPath is a way to multiply bytes: a set of machine instructions of its own, since not all machines of a path have
// the instructions for this.
type dotPath int

const (
	dotPortable dotPath = iota
	dotAVX2             // widened to words, VPMADDWD
	dotVNNI256          // VPDPBUSD of AVX-VNNI
	dotVNNI512          // VPDPBUSD of AVX-512 VNNI
)

var dotPathNames = []string{dotPortable: "portable", dotAVX2: "avx2", dotVNNI256: "vnni256", dotVNNI512: "vnni512"}

// liveDots is the way that weights are packed for from now on.
var liveDots = chooseDots(live, supportedDots())

// DotPath names the way bytes are multiplied: "vnni512" (AVX-512 VNNI), "vnni256" (AVX-VNNI), "avx2" or "portable",
// the best that the machine has on its live [Path].
func DotPath() string { return dotPathNames[liveDots] }

// chooseDots returns the best of the supported ways for a path. Held down to AVX2, a machine does without VNNI.
func chooseDots(p path, supported []dotPath) dotPath {
	best := map[path]dotPath{portable: dotPortable, avx2: dotAVX2, avx512: dotVNNI512}[p]
	if p == avx2 && !slices.Contains(supported, dotVNNI512) {
		best = dotVNNI256
	}
	choice := dotPortable
	for _, d := range supported {
		if d <= best {
			choice = max(choice, d)
		}
	}
	return choice
}

// dotTiles lists, for one vector of outputs, two, and so on, the most pixels of a tile.
func (d dotPath) dotTiles() []int {
	switch d {
	case dotAVX2:
		return []int{4}
	case dotVNNI256:
		return []int{6}
	}
	return []int{DotPixels, DotPixels, DotPixels / 2, DotPixels / 2}
}

// ByteWeights are the weights of a dense convolution of unsigned bytes, packed for the path that was live then.
type ByteWeights struct {
	path                 dotPath
	outputs              int
	quads, columns, rows int
	tiles                []int   // vectors of each tile
	start                []int32 // [vectors][16]: what a sum starts from
	packed               []int8  // [tile][row][column][quad][vector][16][4]
	pairs                []int16 // instead, for dotAVX2: [vector][row][column][quad][half][even or odd][8][2]
}

// PackBytes packs weights [outputs][inputs][rows][columns] for inputs that lie as [rows][columns][padded inputs], padded
// to a multiple of four with any bytes. Sums start from offset times the sum of an output's weights, wrapped around: what
// inputs stored as their value less offset lack.
func PackBytes(weights []int8, outputs, inputs, rows, columns int, offset int32) *ByteWeights {
	w := &ByteWeights{path: liveDots, outputs: outputs, quads: ceil(inputs, 4), columns: columns, rows: rows}
	vectors := ceil(outputs, Lanes)
	most := len(w.path.dotTiles())
	for i := range ceil(vectors, most) {
		_, n := part(vectors, ceil(vectors, most), i)
		w.tiles = append(w.tiles, n)
	}
	w.start = make([]int32, vectors*Lanes)
	each := inputs * rows * columns
	for o := range outputs {
		for _, v := range weights[o*each : (o+1)*each] {
			w.start[o] += offset * int32(v)
		}
	}
	w.pack(weights, inputs)
	return w
}

// pack puts every weight where its path reads it.
func (w *ByteWeights) pack(weights []int8, inputs int) {
	taps := w.rows * w.columns
	size := len(w.start) * taps * w.quads * 4
	if w.path == dotAVX2 {
		w.pairs = make([]int16, size)
	} else {
		w.packed = make([]int8, size)
	}
	first := 0
	for _, vectors := range w.tiles {
		for o := first * Lanes; o < min((first+vectors)*Lanes, w.outputs); o++ {
			for i := range inputs {
				for tap := range taps {
					step := first*taps*w.quads + (tap*w.quads+i/4)*vectors + o/Lanes - first
					w.put(weights[(o*inputs+i)*taps+tap], step, o%Lanes, i%4)
				}
			}
		}
		first += vectors
	}
}

// put stores the weight of a lane and of one of four inputs at a step, the number of a vector in the packed weights.
func (w *ByteWeights) put(v int8, step, lane, input int) {
	if w.path == dotAVX2 {
		half, odd := lane/8, input%2
		w.pairs[((step*2+half)*2+odd)*16+lane%8*2+input/2] = int16(v)
		return
	}
	w.packed[(step*Lanes+lane)*4+input] = v
}

// Pixels is the most pixels for [ByteWeights.Dots].
func (w *ByteWeights) Pixels() int { return w.path.dotTiles()[slices.Max(w.tiles)-1] }

// Bytes is how much memory the packed weights take.
func (w *ByteWeights) Bytes() int { return len(w.packed) + 2*len(w.pairs) + 4*len(w.start) }

// DotView says where the inputs of pixels and taps lie, as distances in bytes.
type DotView struct {
	Pixel       int // from one pixel's first input to the next pixel's
	Column, Row int // from a tap to its neighbour
}

// dotTile is the inner product at the heart of [ByteWeights.Dots]: vectors of outputs for pixels in a line. Assembly reads it
// field by field.
type dotTile struct {
	vectors, pixels      int
	quads, columns, rows int // taps; quads are four inputs each
	xPixel               int // distances in bytes between pixels
	xColumn, xRow        int // and between taps
	sumPixel             int // distance in int32 between the sums of pixels
}

// Dots computes, for 1 to Pixels pixels p and every output o,
//
//	sums[p*sumPixel + o] = start[o] + sum over inputs i, rows r, columns c of x[p*Pixel + r*Row + c*Column + i] * weight[o][i][r][c]
//
// in int32, wrapping around. It writes outputs up to the next multiple of 16, and reads inputs up to the next of 4.
func (w *ByteWeights) Dots(sums []int32, sumPixel int, x []uint8, view DotView, pixels int) {
	t := dotTile{pixels: pixels, quads: w.quads, columns: w.columns, rows: w.rows,
		xPixel: view.Pixel, xColumn: view.Column, xRow: view.Row, sumPixel: sumPixel}
	_ = x[(pixels-1)*view.Pixel+(w.rows-1)*view.Row+(w.columns-1)*view.Column+4*w.quads-1]
	_ = sums[(pixels-1)*sumPixel+len(w.start)-1]
	first, step := 0, w.rows*w.columns*w.quads
	for _, t.vectors = range w.tiles {
		t.run(w, sums[first*Lanes:], x, w.start[first*Lanes:], first*step)
		first += t.vectors
	}
}

// run computes one tile from the weights of steps from the given one on.
func (t *dotTile) run(w *ByteWeights, sums []int32, x []uint8, start []int32, step int) {
	if t.simd(w, &sums[0], &x[0], &start[0], step) {
		return
	}
	for p := range t.pixels {
		for v := range t.vectors {
			sum := (*[Lanes]int32)(sums[p*t.sumPixel+v*Lanes:])
			*sum = [Lanes]int32(start[v*Lanes:])
			t.portable(sum, x[p*t.xPixel:], w.packed[(step+v)*Lanes*4:])
		}
	}
}

// portable adds to the sums of one vector of a pixel.
func (t *dotTile) portable(sum *[Lanes]int32, x []uint8, w []int8) {
	at := 0
	for r := range t.rows {
		for c := range t.columns {
			inputs := x[r*t.xRow+c*t.xColumn:][:4*t.quads]
			for len(inputs) > 0 {
				dot((*[4]uint8)(inputs), (*[Lanes * 4]int8)(w[at:]), sum)
				inputs = inputs[4:]
				at += t.vectors * Lanes * 4
			}
		}
	}
}

// dot adds to every lane its four products.
func dot(x *[4]uint8, w *[Lanes * 4]int8, sum *[Lanes]int32) {
	x0, x1, x2, x3 := int32(x[0]), int32(x[1]), int32(x[2]), int32(x[3])
	for l := range sum {
		sum[l] += x0*int32(w[4*l]) + x1*int32(w[4*l+1]) + x2*int32(w[4*l+2]) + x3*int32(w[4*l+3])
	}
}

// LargestBytes is y = max(x, y), element by element.
func LargestBytes(y, x []uint8) {
	x = x[:len(y)]
	for i := largestSIMD(y, x); i < len(y); i++ {
		y[i] = max(y[i], x[i])
	}
}
