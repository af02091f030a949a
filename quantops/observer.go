package quantops

import (
	"math"
	"sync"

	"github.com/goqat/goqat/internal/kernel"
)

// movingRange is a range that follows batches of data: with the constant c of the moving average m += c·(batch - m), or
// with 0 the smallest and the largest number of all batches.
type movingRange struct{ average float64 }

// follow moves the range theta towards that of a batch; the first one is copied.
func (r movingRange) follow(theta []float32, low, high float32, batches int) {
	switch {
	case batches == 0:
		theta[0], theta[1] = low, high
	case r.average == 0:
		theta[0], theta[1] = min(theta[0], low), max(theta[1], high)
	default:
		theta[0] += float32(r.average * (float64(low) - float64(theta[0])))
		theta[1] += float32(r.average * (float64(high) - float64(theta[1])))
	}
}

// magnitudeBins are those of numbers of one sign, up to twice the largest magnitude.
const magnitudeBins = 4096

// rangeHistogram counts numbers by sign in equal bins of their magnitude up to reach, the power of two above the largest.
// Where a larger number comes, reach doubles and two bins become one, so that what it counts depends neither on the order
// of the numbers nor on how they are divided into batches. Zeros are counted apart: every grid has them exactly.
type rangeHistogram struct {
	low, high float32
	reach     float64 // 0 as long as all numbers are zero
	zeros     int64
	negative  [magnitudeBins]int64
	positive  [magnitudeBins]int64
}

// histograms are for short use.
var histograms = sync.Pool{New: func() any { return &rangeHistogram{} }}

// add counts the numbers of x. After one that is not finite the range tells so and nothing is counted.
func (h *rangeHistogram) add(x []float32, e Extent) {
	low, high := kernel.Range(x, e)
	h.low, h.high = min(h.low, low), max(h.high, high)
	if !h.finite() {
		return
	}
	_, exponent := math.Frexp(max(-float64(h.low), float64(h.high)))
	if h.low != 0 || h.high != 0 {
		h.extend(math.Ldexp(1, exponent))
	}
	bins := magnitudeBins / h.reach // with no number but zeros it is not used
	for i, v := range x {
		if i >= e.Full && i%kernel.Lanes >= e.Lanes {
			continue
		}
		switch {
		case v > 0:
			h.positive[int(float64(v)*bins)]++
		case v < 0:
			h.negative[int(float64(-v)*bins)]++
		default:
			h.zeros++
		}
	}
}

func (h *rangeHistogram) finite() bool { return h.low-h.low == 0 && h.high-h.high == 0 }

// extend makes reach at least the given power of two.
func (h *rangeHistogram) extend(reach float64) {
	if h.reach == 0 {
		h.reach = reach
	}
	for ; h.reach < reach; h.reach *= 2 {
		for _, counts := range []*[magnitudeBins]int64{&h.negative, &h.positive} {
			for i := range magnitudeBins / 2 {
				counts[i] = counts[2*i] + counts[2*i+1]
			}
			clear(counts[magnitudeBins/2:])
		}
	}
}

// magnitudes returns the counts of |x| without zeros.
func (h *rangeHistogram) magnitudes() []int64 {
	counts := make([]int64, magnitudeBins)
	for i := range counts {
		counts[i] = h.negative[i] + h.positive[i]
	}
	return counts
}

// clipped returns the range of the numbers as far as it lies in [-reach, reach].
func (h *rangeHistogram) clipped(reach float64) (low, high float32) {
	r := float32(min(reach, math.MaxFloat32))
	return max(h.low, -r), min(h.high, r)
}

// percentile returns the range inside which at least the given share of all numbers lies, by magnitude: the edge of a bin.
func (h *rangeHistogram) percentile(share float64) (low, high float32) {
	counts, total := h.magnitudes(), h.zeros
	for _, n := range counts {
		total += n
	}
	inside, wanted := h.zeros, float64(share*float64(total))
	for i, n := range counts {
		if inside += n; float64(inside) >= wanted {
			return h.clipped(float64(i+1) * (h.reach / magnitudeBins))
		}
	}
	return h.low, h.high
}

// entropyBins bounds the bins of magnitudes that [rangeHistogram.entropy] compares distributions with, and
// entropyCandidates the number of ranges that it tries.
const (
	entropyBins       = 2048
	entropyCandidates = 128
)

// entropy returns the range of least Kullback-Leibler divergence between the magnitudes, those outside the range counted
// at its end, and what is left of them when the range has so many levels: in every group of bins that fall on one level
// the bins that are not empty share its numbers equally. Zeros don't count. It tries entropyCandidates ranges that end with a bin.
//
// With few numbers bins are wide, about one for each number, since single numbers in bins of their own would look like
// peaks of the distribution.
func (h *rangeHistogram) entropy(levels int) (low, high float32) {
	counts := h.magnitudes()
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	for bins := magnitudeBins; bins > entropyBins || bins > 8*levels && int64(bins) > 2*total; bins /= 2 {
		for i := range bins / 2 {
			counts[i] = counts[2*i] + counts[2*i+1]
		}
		counts = counts[:bins/2]
	}
	d := newDivergence(counts)
	best, least := d.end, math.Inf(1)
	step := max(1, len(counts)/entropyCandidates)
	for next := d.end; next >= levels; next -= step {
		end := next
		for end > levels && counts[end-1] == 0 {
			end-- // an empty last bin has nothing that could stand for numbers outside
		}
		if v := d.at(end, levels); v < least {
			best, least = end, v
		}
	}
	return h.clipped(float64(best) * (h.reach / float64(len(counts))))
}

// divergence holds running sums over the bins before each.
type divergence struct {
	counts []int64
	end    int // behind the last bin that is not empty
	sum    []float64
	logs   []float64 // Σ n·ln n
	filled []int     // bins that are not empty
}

func newDivergence(counts []int64) *divergence {
	d := &divergence{counts: counts, sum: make([]float64, len(counts)+1), logs: make([]float64, len(counts)+1), filled: make([]int, len(counts)+1)}
	for i, n := range counts {
		d.sum[i+1], d.logs[i+1], d.filled[i+1] = d.sum[i]+float64(n), d.logs[i], d.filled[i]
		if n > 0 {
			d.logs[i+1] += timesLog(float64(n))
			d.filled[i+1]++
			d.end = i + 1
		}
	}
	return d
}

// timesLog is n·ln n.
func timesLog(n float64) float64 { return float64(n * countLog(n)) }

// smallLogs are the logarithms of small counts, which are what the weights of a channel give.
var smallLogs = sync.OnceValue(func() *[1024]float64 {
	var logs [1024]float64
	for n := range logs {
		logs[n] = kernel.Log(float64(n))
	}
	return &logs
})

// countLog is ln n of a count.
func countLog(n float64) float64 {
	if logs := smallLogs(); n < float64(len(logs)) {
		return logs[int(n)]
	}
	return kernel.Log(n)
}

// at returns the divergence of a range that ends before a bin; infinite where numbers are counted at an end that has none.
func (d *divergence) at(end, levels int) float64 {
	total, inside := d.sum[len(d.counts)], d.sum[end]
	outside, last := total-inside, float64(d.counts[end-1])
	if last == 0 && outside > 0 || inside == 0 {
		return math.Inf(1)
	}
	entropy := d.logs[end-1]
	if last+outside > 0 {
		entropy += timesLog(last + outside)
	}
	cross := 0.0
	for g := range levels {
		from, to := g*end/levels, (g+1)*end/levels
		if n := d.sum[to] - d.sum[from]; n > 0 {
			weight := n
			if to == end {
				weight += outside
			}
			cross += float64(weight * (countLog(n) - countLog(float64(d.filled[to]-d.filled[from]))))
		}
	}
	return (entropy-cross)/total - countLog(total) + countLog(inside)
}

// lloyd returns the step of least squared error near the one that leaves nothing outside: levels are those nearest to the
// numbers, each in the middle of its bin, and the step is the best for the levels, Σ n·v·level / Σ n·level², in turns until it
// stands still.
func (h *rangeHistogram) lloyd(c codes) float64 {
	step := float64(h.high) / float64(c.max)
	if c.min < 0 {
		step = max(step, float64(h.low)/float64(c.min))
	}
	for range alternations {
		next := h.stepFor(c, step)
		if next == step || !(next > 0) {
			break
		}
		step = next
	}
	return step
}

// stepFor returns the best step for the levels that a step leads to.
func (h *rangeHistogram) stepFor(c codes, step float64) float64 {
	product, square, width := 0.0, 0.0, h.reach/magnitudeBins
	add := func(n int64, v float64) {
		if n > 0 {
			level := min(max(math.RoundToEven(v/step), float64(c.min)), float64(c.max))
			product += float64(float64(n) * float64(v*level))
			square += float64(float64(n) * float64(level*level))
		}
	}
	for i := range magnitudeBins {
		v := (float64(i) + 0.5) * width
		add(h.positive[i], v)
		add(h.negative[i], -v)
	}
	return product / square
}

// squaredErrors is that of the numbers, each in the middle of its bin, whatever the limit.
func (h *rangeHistogram) squaredErrors(u kernel.Uniform, _ float64) float64 {
	sum, width := 0.0, h.reach/magnitudeBins
	for i := range magnitudeBins {
		v := (float64(i) + 0.5) * width
		if n := h.positive[i]; n > 0 {
			sum += float64(float64(n) * squaredError(v, u))
		}
		if n := h.negative[i]; n > 0 {
			sum += float64(float64(n) * squaredError(-v, u))
		}
	}
	return sum
}

// squaredError is (level(v)·scale - v)².
func squaredError(v float64, u kernel.Uniform) float64 {
	level := min(max(math.RoundToEven(v/float64(u.Scale)), float64(u.Low)), float64(u.High))
	d := v - float64(level*float64(u.Scale))
	return float64(d * d)
}

// squaredErrors adds up the squared errors of x, those of even and of odd places apart. It may stop where the sum has
// reached the limit.
func squaredErrors(u kernel.Uniform, x []float32, limit float64) float64 {
	inverse, sum := 1/u.Scale, 0.0
	for len(x) > 0 && !(sum >= limit) {
		n := min(len(x), 64)
		var even, odd float32
		for i := 0; i+1 < n; i += 2 {
			d := difference(x[i], inverse, &u)
			e := difference(x[i+1], inverse, &u)
			even += float32(d * d)
			odd += float32(e * e)
		}
		if n%2 == 1 {
			d := difference(x[n-1], inverse, &u)
			even += float32(d * d)
		}
		sum += float64(even) + float64(odd)
		x = x[n:]
	}
	return sum
}

// difference is v - level(v)·scale.
func difference(v, inverse float32, u *kernel.Uniform) float32 {
	const bias = 3 << 22 // added and subtracted it rounds half to even
	level := float32(min(max(float32(v*inverse), u.Low), u.High)+bias) - bias
	return v - float32(level*u.Scale)
}

// dropNegative makes negative numbers zeros.
func (h *rangeHistogram) dropNegative() {
	for _, n := range h.negative {
		h.zeros += n
	}
	h.low, h.negative = max(h.low, 0), [magnitudeBins]int64{}
}
