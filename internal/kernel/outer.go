package kernel

// tileStreams is how many streams of x meet tileOutputs channels of dy in one outer product.
const tileStreams = 6

// outer is the heart of WeightGradient: for every pair of an output channel and a stream, lane sums of dy·x over rows
// and columns. A stream is an input channel as one kernel row sees it. Distances are in floats. Assembly reads it
// field by field.
type outer struct {
	rows, columns     int
	outputs, dyOutput int
	streams           int
	xStream           [tileStreams]int // places of the streams' first vectors
	dyRow, dyColumn   int
	xRow, xColumn     int
}

// outerSums holds the lane sums of output o and stream i at (o*tileStreams+i)*Lanes.
type outerSums [tileOutputs * tileStreams * Lanes]float32

// outerTotals holds the sum of output o and stream i at o*tileStreams+i.
type outerTotals [tileOutputs * tileStreams]float32

// run adds to sums, the part of an outerSums from some stream on, the products of dy[dyAt:] and x[xAt:].
func (t *outer) run(sums []float32, dy []float32, dyAt int, x []float32, xAt int) {
	if t.rows <= 0 || t.columns <= 0 || t.simd(&sums[0], &dy[dyAt], &x[xAt]) {
		return
	}
	for o := range t.outputs {
		for i := range t.streams {
			t.portable((*[Lanes]float32)(sums[(o*tileStreams+i)*Lanes:]), dy, dyAt+o*t.dyOutput, x, xAt+t.xStream[i])
		}
	}
}

// portable adds the products of one output and one stream.
func (t *outer) portable(sums *[Lanes]float32, dy []float32, dyAt int, x []float32, xAt int) {
	var wide [Lanes]float64
	for l := range wide {
		wide[l] = float64(sums[l])
	}
	for r := range t.rows {
		for c := range t.columns {
			multiplyAddVector(&wide, (*[Lanes]float32)(dy[dyAt+r*t.dyRow+c*t.dyColumn:]), (*[Lanes]float32)(x[xAt+r*t.xRow+c*t.xColumn:]))
		}
	}
	for l := range sums {
		sums[l] = float32(wide[l])
	}
}

// multiplyAddVector is sum += x*y, fused, lane by lane.
func multiplyAddVector(sum *[Lanes]float64, x, y *[Lanes]float32) {
	for l := range sum {
		s := float64(float64(x[l])*float64(y[l])) + sum[l]
		if suspect(s) {
			sum[l] = fmaExact(float64(x[l]), float64(y[l]), sum[l])
			continue
		}
		sum[l] = float64(float32(s))
	}
}

// halve adds up the lanes of every sum and adds that to its total.
func (s *outerSums) halve(totals *outerTotals) {
	if s.simd(totals) {
		return
	}
	for i := range totals {
		lanes := [Lanes]float32(s[i*Lanes:])
		totals[i] += halve(&lanes)
	}
}
