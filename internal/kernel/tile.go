package kernel

// Sizes of the register tiles. They bound what one call computes; results do not depend on them.
const (
	tileOutputs = 4 // output channels
	tilePixels  = 6 // neighbouring pixels
	tileInputs  = 6 // input channels (weight gradient)
)

// tile is the inner product at the heart of Forward and InputGradient: for outputs channels and pixels neighbouring
// targets, the sum over channels, rows and columns of taps. Distances are in floats and may be negative.
type tile struct {
	channels, rows, columns   int // taps
	xChannel, xRow, xColumn   int // distances in x between taps
	wChannel, wRow, wColumn   int // distances in w between taps
	pixels, xPixel, yPixel    int
	outputs, wOutput, yOutput int
}

// aim sets the distances that follow from a pair of walks from source to target tensors.
func (t *tile) aim(walks *[2]walk, source, target view, kernelColumns int) {
	rows, columns := &walks[0], &walks[1]
	t.xRow, t.xColumn = rows.sourceTap*source.row, columns.sourceTap*source.column
	t.wRow, t.wColumn = rows.tapStep*kernelColumns, columns.tapStep
	t.xPixel, t.yPixel = columns.sourcePixel*source.column, columns.targetStep*target.column
}

// run computes the tile from x[xAt:] and w[wAt:] into y[yAt:].
func (t *tile) run(y []float32, yAt int, x []float32, xAt int, w []float32, wAt int) {
	for o := range t.outputs {
		for p := range t.pixels {
			t.portable((*[Lanes]float32)(y[yAt+o*t.yOutput+p*t.yPixel:]), x, xAt+p*t.xPixel, w, wAt+o*t.wOutput)
		}
	}
}

// portable computes one vector of a tile.
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

// multiplyAdd is sum += x*w, fused. It is fma written out, since the call would cost more than the arithmetic.
func multiplyAdd(sum *[Lanes]float64, x *[Lanes]float32, w float64) {
	for l := range sum {
		s := float64(x[l])*w + sum[l]
		if suspect(s) {
			sum[l] = fmaExact(float64(x[l]), w, sum[l])
			continue
		}
		sum[l] = float64(float32(s))
	}
}

// outer is the heart of WeightGradient: for every pair of an output and an input channel, the sum over rows and
// columns of dy·x, lanes added up at the end.
type outer struct {
	rows, columns     int
	outputs, dyOutput int
	inputs, xInput    int
	dyRow, dyColumn   int
	xRow, xColumn     int
}

// run writes the sums of the pair (o, i) to sums[o*tileInputs+i].
func (t *outer) run(sums *[tileOutputs * tileInputs]float32, dy []float32, dyAt int, x []float32, xAt int) {
	for o := range t.outputs {
		for i := range t.inputs {
			sums[o*tileInputs+i] = t.portable(dy, dyAt+o*t.dyOutput, x, xAt+i*t.xInput)
		}
	}
}

// portable computes the sum of one pair of channels.
func (t *outer) portable(dy []float32, dyAt int, x []float32, xAt int) float32 {
	var sum [Lanes]float64
	for r := range t.rows {
		for c := range t.columns {
			multiplyAddVector(&sum, (*[Lanes]float32)(dy[dyAt+r*t.dyRow+c*t.dyColumn:]), (*[Lanes]float32)(x[xAt+r*t.xRow+c*t.xColumn:]))
		}
	}
	var lanes [Lanes]float32
	for l := range lanes {
		lanes[l] = float32(sum[l])
	}
	return halve(&lanes)
}

// multiplyAddVector is sum += x*y, fused, lane by lane.
func multiplyAddVector(sum *[Lanes]float64, x, y *[Lanes]float32) {
	for l := range sum {
		s := float64(x[l])*float64(y[l]) + sum[l]
		if suspect(s) {
			sum[l] = fmaExact(float64(x[l]), float64(y[l]), sum[l])
			continue
		}
		sum[l] = float64(float32(s))
	}
}
