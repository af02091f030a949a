package kernel

// Sizes of the register tiles. They bound what one call computes; results do not depend on them.
const (
	tileOutputs = 4 // output channels
	tilePixels  = 6 // pixels in a line
)

// tile is the inner product at the heart of Forward and InputGradient: for outputs channels and pixels targets in a
// line, the sum over channels, rows and columns of taps, times the output's scale, plus its bias; then, more times, for
// as many further channels. Distances are in floats and may be negative. Assembly reads it field by field.
type tile struct {
	channels, rows, columns   int // taps
	xChannel, xRow, xColumn   int // distances in x between taps
	wChannel, wRow, wColumn   int // distances in w between taps
	pixels, xPixel, yPixel    int
	outputs, wOutput, yOutput int
	more                      int
	scale, bias               []float32 // of the outputs; nil leaves the step out
}

// aim sets the distances that follow from a pair of walks from source to target tensors.
func (t *tile) aim(walks *[2]walk, source view, kernelColumns int) {
	rows, columns := &walks[0], &walks[1]
	t.xRow, t.xColumn = rows.sourceTap*source.row, columns.sourceTap*source.column
	t.wRow, t.wColumn = rows.tapStep*kernelColumns, columns.tapStep
}

// run computes the tile from x[xAt:] and w[wAt:] into y[yAt:].
func (t *tile) run(y []float32, yAt int, x []float32, xAt int, w []float32, wAt int) {
	if t.channels*t.rows*t.columns == 0 {
		xAt, wAt = 0, 0 // the place of the first tap may lie outside
	}
	if t.simd(&y[yAt], &x[xAt], &w[wAt]) {
		return
	}
	for o := range t.outputs * (1 + t.more) {
		for p := range t.pixels {
			v := (*[Lanes]float32)(y[yAt+o*t.yOutput+p*t.yPixel:])
			t.portable(v, x, xAt+p*t.xPixel, w, wAt+o*t.wOutput)
			t.affine(v, o)
		}
	}
}

// portable computes the sum of one vector of a tile.
func (t *tile) portable(y *[Lanes]float32, x []float32, xAt int, w []float32, wAt int) {
	var sum [Lanes]float64
	for c := range t.channels {
		for k := range t.rows {
			for l := range t.columns {
				v := (*[Lanes]float32)(x[xAt+c*t.xChannel+k*t.xRow+l*t.xColumn:])
				multiplyAdd(&sum, v, float64(w[wAt+c*t.wChannel+k*t.wRow+l*t.wColumn]))
			}
		}
	}
	for l := range y {
		y[l] = float32(sum[l])
	}
}

// affine applies the scale and the bias of output o.
func (t *tile) affine(y *[Lanes]float32, o int) {
	if t.scale != nil {
		for l := range y {
			y[l] *= t.scale[o]
		}
	}
	if t.bias != nil {
		for l := range y {
			y[l] += t.bias[o]
		}
	}
}

// multiplyAdd is sum += x*w, fused. It is fma written out, since the call would cost more than the arithmetic.
func multiplyAdd(sum *[Lanes]float64, x *[Lanes]float32, w float64) {
	for l := range sum {
		s := float64(float64(x[l])*w) + sum[l]
		if suspect(s) {
			sum[l] = fmaExact(float64(x[l]), w, sum[l])
			continue
		}
		sum[l] = float64(float32(s))
	}
}
