package integer

// Planes returns the numbers of the program's values that hold codes or a wide value.
func (v Value) Planes() []int { return v.planes }

// WriteHeader makes a payload edited by a test a file with a right checksum again.
var WriteHeader = writeHeader

// OutputShape returns the shape of a node's output.
func OutputShape(n *Node, in []Shape, w *IntegerWeights) (Shape, error) { return n.outputShape(in, w) }

// PackedBytes returns what the packed weights of a program take.
func PackedBytes(p *Program) int {
	total := 0
	for _, o := range p.ready(p.proved).operations {
		for _, b := range o.blocks {
			for _, planes := range b.planes {
				for _, weights := range planes {
					total += weights.Bytes()
				}
			}
		}
	}
	return total
}

// Climb makes a staircase ready and returns what the fast engine does with wide numbers.
func Climb(s *Steps) func(y []uint8, x []int32) {
	t := newStairs(s, &buffer{}, &buffer{narrow: true})
	return func(y []uint8, x []int32) {
		shape := Shape{len(x), 1, 1}
		t.run(&buffer{shape: shape, words: x}, &buffer{shape: shape, narrow: true, bytes: y})
	}
}

// WorkerBytes returns how much memory a worker of the fast engine has.
func WorkerBytes(p *Program) int {
	e := p.ready(p.proved)
	w := e.newWorker()
	total := 0
	for _, s := range e.slots {
		if s.narrow {
			total += s.size
		} else {
			total += 4 * s.size
		}
	}
	for _, padded := range w.padded {
		total += len(padded)
	}
	for _, sums := range w.sums {
		total += 4 * len(sums)
	}
	return total
}
