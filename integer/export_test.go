package integer

// Index returns the number of the program's value that holds codes or a wide value.
func (v Value) Index() int { return v.index }

// WriteHeader makes a payload edited by a test a file with a right checksum again.
var WriteHeader = writeHeader

// OutputShape returns the shape of a node's output.
func OutputShape(n *Node, in []Shape, w *IntegerWeights) (Shape, error) { return n.outputShape(in, w) }

// PackedBytes returns what the packed weights of a program take.
func PackedBytes(p *Program) int {
	total := 0
	for _, o := range p.ready(p.proved).operations {
		for _, b := range o.blocks {
			for _, weights := range b.planes {
				total += weights.Bytes()
			}
		}
	}
	return total
}
