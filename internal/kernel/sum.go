package kernel

import "math"

// Extent says which elements of a tensor are there: all of the first Full, and in the rest only the first Lanes of
// every sixteen. The last block of a short batch has padded lanes, which must not show in a statistic.
type Extent struct{ Full, Lanes int }

// Images is the extent of n images of size elements each in blocks.
func Images(n, size int) Extent {
	return Extent{Full: n / Lanes * size * Lanes, Lanes: n % Lanes}
}

// Dense is the extent of n elements that are all there.
func Dense(n int) Extent { return Extent{Full: n} }

func (e Extent) has(i int) bool { return i < e.Full || i%Lanes < e.Lanes }

// count is how many of n elements are there.
func (e Extent) count(n int) int {
	upTo := func(n int) int { return n/Lanes*e.Lanes + min(n%Lanes, e.Lanes) }
	full := min(e.Full, n)
	return full + upTo(n) - upTo(full)
}

// Range returns the smallest and the largest element, zeros as +0; both are 0 where there is none. A NaN anywhere makes
// both NaN.
func Range(x []float32, e Extent) (low, high float32) {
	full := min(e.Full, len(x))
	all := newExtremes()
	all.scan(x[:full], Lanes)
	all.scan(x[full:], e.Lanes)
	low, high = all.low[0], all.high[0]
	for l := range Lanes {
		if all.nan[l] != all.nan[l] {
			return all.nan[l], all.nan[l]
		}
		low, high = min(low, all.low[l]), max(high, all.high[l])
	}
	if low > high {
		return 0, 0
	}
	return low + 0, high + 0
}

// extremes are the smallest and the largest number of every lane and, where it has one, a NaN. Assembly knows the order.
type extremes struct{ low, high, nan [Lanes]float32 }

func newExtremes() (e extremes) {
	for l := range Lanes {
		e.low[l], e.high[l] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	return e
}

// scan adds the first lanes of every sixteen elements.
func (e *extremes) scan(x []float32, lanes int) {
	if len(x) <= chunk {
		part := extremesOf(x)
		e.take(&part, lanes)
		return
	}
	parts := make([]extremes, ceil(len(x), chunk))
	chunks(len(x), func(from, to int) { parts[from/chunk] = extremesOf(x[from:to]) })
	for i := range parts {
		e.take(&parts[i], lanes)
	}
}

// take adds the first lanes of other.
func (e *extremes) take(other *extremes, lanes int) {
	for l := range lanes {
		e.low[l], e.high[l] = min(e.low[l], other.low[l]), max(e.high[l], other.high[l])
		if nan := other.nan[l]; nan != nan {
			e.nan[l] = nan
		}
	}
}

func extremesOf(x []float32) extremes {
	e := newExtremes()
	for i := e.scanSIMD(x); i < len(x); i++ {
		e.add(i%Lanes, x[i])
	}
	return e
}

func (e *extremes) add(l int, v float32) {
	if v != v {
		e.nan[l] = v
		return
	}
	e.low[l], e.high[l] = min(e.low[l], v), max(e.high[l], v)
}

// MeanAbsolute returns the mean of |x|: float64 lane sums over each chunk, halved, chunks added in order.
func MeanAbsolute(x []float32, e Extent) float64 {
	sums := make([]float64, ceil(len(x), chunk))
	chunks(len(x), func(from, to int) {
		full := min(max(e.Full, from), to)
		var all, some [Lanes]float64
		absolutes(&all, x[from:full], 0)
		some = all
		absolutes(&some, x[full:to], full)
		copy(all[:e.Lanes], some[:]) // the other lanes are padding from here on
		sums[from/chunk] = halve(&all)
	})
	sum := 0.0
	for _, s := range sums {
		sum += s
	}
	if count := e.count(len(x)); count > 0 {
		return sum / float64(count)
	}
	return 0
}

// absolutes adds |x| lane by lane, x being what lies from an element on.
func absolutes(lanes *[Lanes]float64, x []float32, from int) {
	i := 0
	if from%Lanes == 0 {
		i = absolutesSIMD(lanes, x)
	}
	for ; i < len(x); i++ {
		lanes[(from+i)%Lanes] += float64(max(x[i], -x[i]))
	}
}
