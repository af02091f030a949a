package quantops

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// Fit finds codes for the weights w, and centroids, [Centroids][Length], that make
//
//	Σ (v - centroid[code])ᵀ·G·(v - centroid[code])      over all vectors v of w
//
// small, and returns it. G, [Length][Length], is the sum of the Gram matrices of what the vectors are multiplied with: then
// that is how far the layer's outputs go astray, but for what its vectors have in common. Nil stands for the identity:
// the squared error of the weights. It fails where w or G are not finite, or G is zero.
//
// Centroids start from vectors, each drawn from the stream with a probability that is proportional to its squared distance
// from those before it (Arthur and Vassilvitskii, "k-means++", 2007). Then, as Lloyd does, every vector goes to its closest
// centroid, the first of equally close ones, and every centroid to the mean of its vectors, until no vector moves or
// 100 times; a centroid without vectors takes over the one that is farthest from its own, and stays without
// where no two are different any more. In the end single vectors move as long as that helps once centroids move along
// (Hartigan and Wong, 1979).
func (c *Codebook) Fit(codes, centroids, w []float32, gram []float64, s *random.Stream) (float64, error) {
	for i, v := range w {
		if v-v != 0 {
			return 0, fmt.Errorf("quantops: weight %d is %v: want a finite number", i, v)
		}
	}
	search, err := newClustering(c, w, gram)
	if err != nil {
		return 0, err
	}
	search.start(s)
	search.run()
	search.exchange()
	for j, code := range search.codes {
		codes[j] = float32(code)
	}
	for i, v := range search.means() {
		centroids[i] = float32(v)
	}
	return search.objective(), nil
}

// clustering is a search for codes and centroids.
type clustering struct {
	vectors, length, centroids int
	weights                    []float64 // [vectors][length]
	points                     []float64 // the same where G is the identity: Lᵀ·v, G = L·Lᵀ
	centers                    []float64 // [centroids][length], among the points
	codes                      []int     // of each vector
	distance                   []float64 // of each point to its center, squared
}

func newClustering(c *Codebook, w []float32, gram []float64) (*clustering, error) {
	s := &clustering{vectors: len(w) / c.Length, length: c.Length, centroids: c.Centroids, weights: make([]float64, len(w))}
	for i, v := range w {
		s.weights[i] = float64(v)
	}
	s.points = s.weights
	if gram != nil {
		factor, err := cholesky(gram, c.Length)
		if err != nil {
			return nil, err
		}
		s.points = make([]float64, len(w))
		s.transform(factor)
	}
	s.centers = make([]float64, c.Centroids*c.Length)
	s.codes, s.distance = make([]int, s.vectors), make([]float64, s.vectors)
	return s, nil
}

// transform sets the points Lᵀ·v.
func (c *clustering) transform(l []float64) {
	d := c.length
	c.each(func(j int) {
		v, u := c.weights[j*d:][:d], c.points[j*d:][:d]
		for column := range u {
			for row := column; row < d; row++ {
				u[column] += float64(l[row*d+column] * v[row])
			}
		}
	})
}

// cholesky returns the lower triangle L of G = L·Lᵀ. Columns that depend on those before them, but for what rounding has
// left of them, are zero: inputs without variance.
func cholesky(g []float64, d int) ([]float64, error) {
	l := make([]float64, d*d)
	largest := 0.0
	for i := range d {
		largest = max(largest, g[i*d+i])
	}
	if len(g) != d*d || !(largest > 0) || math.IsInf(largest, 0) {
		return nil, errors.New("quantops: the inputs of the layer are all zero, or not finite: they tell nothing of its weights")
	}
	for column := range d {
		for row := column; row < d; row++ {
			sum := g[row*d+column]
			for i := range column {
				sum -= float64(l[row*d+i] * l[column*d+i])
			}
			switch pivot := l[column*d+column]; {
			case row == column && sum > 1e-12*largest:
				l[row*d+row] = math.Sqrt(sum)
			case row > column && pivot > 0:
				l[row*d+column] = sum / pivot
			}
		}
	}
	return l, nil
}

// start draws the first centers from the points: k-means++ (Arthur and Vassilvitskii, 2007).
func (c *clustering) start(s *random.Stream) {
	for j := range c.distance {
		c.distance[j] = math.Inf(1)
	}
	next := int(s.Below(uint64(c.vectors)))
	for k := range c.centroids {
		copy(c.center(k), c.point(next))
		c.each(func(j int) {
			c.distance[j] = min(c.distance[j], squaredDistance(c.point(j), c.center(k)))
		})
		next = c.draw(s.Float64())
	}
}

// draw returns the vector at a share of the sum of all distances.
func (c *clustering) draw(share float64) int {
	total := 0.0
	for _, distance := range c.distance {
		total += distance
	}
	left, last := share*total, 0
	for j, distance := range c.distance {
		if distance > 0 {
			if last = j; left < distance {
				break
			}
			left -= distance
		}
	}
	return last
}

// each calls do for every vector, in parallel.
func (c *clustering) each(do func(j int)) {
	const together = 64
	kernel.Parallel((c.vectors+together-1)/together, func(task int) {
		for j := task * together; j < min(c.vectors, (task+1)*together); j++ {
			do(j)
		}
	})
}

func (c *clustering) point(j int) []float64  { return c.points[j*c.length:][:c.length] }
func (c *clustering) center(k int) []float64 { return c.centers[k*c.length:][:c.length] }

func squaredDistance(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		v -= b[i]
		sum += float64(v * v)
	}
	return sum
}

// distanceBelow is squaredDistance where that is below a limit; else it may be any number from the limit to it.
func distanceBelow(limit float64, a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		v -= b[i]
		if sum += float64(v * v); sum >= limit {
			break
		}
	}
	return sum
}

// maxSweeps bounds the steps of a search; most end earlier.
const maxSweeps = 100

// run moves points and centers until no point moves.
func (c *clustering) run() {
	for range maxSweeps {
		if !c.assign() {
			return
		}
		c.update()
	}
}

// assign moves every point to its closest center and every empty center to a point, and says whether anything has moved.
func (c *clustering) assign() (moved bool) {
	changed := make([]bool, c.vectors)
	c.each(func(j int) {
		best, least := c.nearest(c.point(j))
		changed[j] = best != c.codes[j]
		c.codes[j], c.distance[j] = best, least
	})
	return c.repair() || slices.Contains(changed, true)
}

// nearest returns the first of the closest centers.
func (c *clustering) nearest(point []float64) (best int, least float64) {
	least = math.Inf(1)
	for k := range c.centroids {
		if distance := distanceBelow(least, point, c.center(k)); distance < least {
			best, least = k, distance
		}
	}
	return best, least
}

// repair gives every empty center the point that is farthest from its own, and says whether there was one. Once all points
// are at their centers the rest stay empty: there are fewer different vectors than centroids.
func (c *clustering) repair() (moved bool) {
	count := c.counts()
	for k := range count {
		if count[k] > 0 {
			continue
		}
		far := -1
		for j, distance := range c.distance {
			if distance > 0 && count[c.codes[j]] > 1 && (far < 0 || distance > c.distance[far]) {
				far = j
			}
		}
		if far < 0 {
			return moved
		}
		count[c.codes[far]]--
		c.codes[far], c.distance[far], count[k], moved = k, 0, 1, true
		copy(c.center(k), c.point(far))
	}
	return moved
}

// counts returns how many vectors every centroid has.
func (c *clustering) counts() []int {
	count := make([]int, c.centroids)
	for _, k := range c.codes {
		count[k]++
	}
	return count
}

// update moves every center that has points to their mean.
func (c *clustering) update() {
	c.average(c.centers, c.points)
	c.each(func(j int) { c.distance[j] = squaredDistance(c.point(j), c.center(c.codes[j])) })
}

// average sets the rows of to that have vectors to the mean of these rows of from, summed in the order of vectors.
func (c *clustering) average(to, from []float64) {
	count, d := c.counts(), c.length
	for k, n := range count {
		if n > 0 {
			clear(to[k*d:][:d])
		}
	}
	for j, k := range c.codes {
		sum := to[k*d:][:d]
		for i, v := range from[j*d:][:d] {
			sum[i] += v
		}
	}
	for k, n := range count {
		for i := range to[k*d:][:d] {
			if n > 0 {
				to[k*d+i] /= float64(n)
			}
		}
	}
}

// means returns the centroids: the means of the vectors themselves, zero where there are none.
func (c *clustering) means() []float64 {
	means := make([]float64, len(c.centers))
	c.average(means, c.weights)
	return means
}

// objective returns the sum of the squared distances.
func (c *clustering) objective() float64 {
	sum := 0.0
	for _, distance := range c.distance {
		sum += distance
	}
	return sum
}

// exchange moves single vectors, and the centers with them, until none moves: it leaves no vector where another centroid
// would have it for less, which Lloyd's steps do not know before centers have moved.
func (c *clustering) exchange() {
	count := c.counts()
	for range maxSweeps {
		moved := false
		for j := range c.codes {
			moved = c.move(j, count) || moved
		}
		if !moved {
			break
		}
	}
	c.update()
}

// margin is what a move has to gain, as a share, so that rounding moves nothing.
const margin = 1e-9

// move takes a vector to the centroid where it does least harm, and says whether that is another one. One of n vectors more at
// a squared distance a adds a·n/(n + 1) to the objective once the center has moved along, one less takes away a·n/(n - 1).
func (c *clustering) move(j int, count []int) bool {
	from, point := c.codes[j], c.point(j)
	if count[from] < 2 {
		return false
	}
	n := float64(count[from])
	best, least := from, squaredDistance(point, c.center(from))*(n/(n-1))*(1-margin)
	for k := range count {
		n := float64(count[k])
		if harm := distanceBelow(least*(n+1)/n, point, c.center(k)) * (n / (n + 1)); k != from && harm < least {
			best, least = k, harm
		}
	}
	if best == from {
		return false
	}
	c.codes[j] = best
	c.shift(from, point, -1/float64(count[from]-1))
	c.shift(best, point, 1/float64(count[best]+1))
	count[from]--
	count[best]++
	return true
}

// shift moves a center a share of the way to a point, away from it for a negative share.
func (c *clustering) shift(k int, point []float64, share float64) {
	center := c.center(k)
	for i, v := range point {
		center[i] += float64(share * (v - center[i]))
	}
}
