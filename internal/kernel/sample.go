package kernel

// Sample takes every Stride-th row and column of each channel and puts Before channels of zeros before the channels and
// After behind them: the parameterless shortcut of residual networks.
type Sample struct {
	Blocks, Channels, Height, Width int // of the input
	Stride, Before, After           int
}

// Out returns channels, height and width of the output.
func (s *Sample) Out() (channels, height, width int) {
	return s.Channels + s.Before + s.After, ceil(s.Height, s.Stride), ceil(s.Width, s.Stride)
}

// Forward computes y from x.
func (s *Sample) Forward(y, x []float32) {
	clear(y)
	s.each(func(out, in int) { copy(y[out:][:Lanes], x[in:][:Lanes]) })
}

// Gradient computes dx from dy.
func (s *Sample) Gradient(dx, dy []float32) {
	clear(dx)
	s.each(func(out, in int) { copy(dx[in:][:Lanes], dy[out:][:Lanes]) })
}

// each calls do with the places of every output vector that has an input, and of that.
func (s *Sample) each(do func(out, in int)) {
	channels, height, width := s.Out()
	Parallel(s.Blocks*s.Channels, func(plane int) {
		block, channel := plane/s.Channels, plane%s.Channels
		out, in := (block*channels+s.Before+channel)*height*width, plane*s.Height*s.Width
		for i := range height {
			for j := range width {
				do((out+i*width+j)*Lanes, (in+(i*s.Width+j)*s.Stride)*Lanes)
			}
		}
	})
}
