package kernel

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

// Range returns the smallest and the largest element; both are 0 where there is none. A NaN anywhere makes both NaN.
func Range(x []float32, e Extent) (low, high float32) {
	first := true
	for i, v := range x {
		switch {
		case !e.has(i):
		case v != v:
			return v, v
		case first:
			low, high, first = v, v, false
		case v < low:
			low = v
		case v > high:
			high = v
		}
	}
	return low, high
}

// MeanAbsolute returns the mean of |x|: float64 lane sums over each chunk, halved, chunks added in order.
func MeanAbsolute(x []float32, e Extent) float64 {
	sum, count := 0.0, 0
	for from := 0; from < len(x); from += chunk {
		var lanes [Lanes]float64
		for i := from; i < min(len(x), from+chunk); i++ {
			if e.has(i) {
				lanes[i%Lanes] += float64(max(x[i], -x[i]))
				count++
			}
		}
		sum += halve(&lanes)
	}
	if count == 0 {
		return 0
	}
	return sum / float64(count)
}
